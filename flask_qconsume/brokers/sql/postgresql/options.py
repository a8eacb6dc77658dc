"""Connection parameters, read from the URL and from the transport options. No I/O."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ....errors import ConfigurationError
from ....settings import Settings
from ....settings import suggest
from ....text import quote

#: Connections of one process for calls, at most. Another connection listens for
#: announcements.
_DEFAULT_POOL_SIZE = 5
_MAX_POOL_SIZE = 100

_SCHEME = re.compile(r"^postgres(ql)?(\+psycopg)?(?=://)")

#: Parameters of libpq, unless the URL has others. A connection that is cut silently
#: is noticed after 10 + 3 * 5 seconds. Calls have time limits of their own.
_PARAMETERS: t.Mapping[str, str | int] = {
    "client_encoding": "UTF8",
    "connect_timeout": 5,
    "fallback_application_name": "flask_qconsume",
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

#: Parameters of each session.
_SESSION: t.Mapping[str, str] = {
    # End statements whose caller has given up, and transactions of halted processes.
    "statement_timeout": "35s",
    "idle_in_transaction_session_timeout": "35s",
    "client_connection_check_interval": "5s",
    # A plan that is made while a table is nearly empty is kept when the table is full,
    # so it must use an index from the beginning. Each statement has an index.
    "enable_seqscan": "off",
    # PostgreSQL adds a high cost to scans that are off, and would compile such a plan.
    "jit": "off",
}

_SETTING = "'QCONSUME_TRANSPORT_OPTIONS'"


@dataclass(frozen=True)
class PostgresOptions:
    """Parameters and options of the connections to PostgreSQL."""

    #: Parameters of libpq, with the password.
    parameters: Mapping[str, t.Any] = field(repr=False)
    #: Parameters of the server, which each connection sets for its session.
    session: Mapping[str, str]
    pool_size: int = _DEFAULT_POOL_SIZE
    #: Whether a pooler may give each transaction to another session. There are no
    #: announcements then, no prepared statements and no parameters of a session.
    transaction_pooling: bool = False


def read_options(settings: Settings) -> PostgresOptions:
    """Read the URL and the transport options.

    :raises ConfigurationError: for a URL that libpq cannot read, and for an unknown or
        wrong option. The error shows no part of the URL.
    """
    known = {"pool_size", "schema", "transaction_pooling"}
    given = settings.transport_options
    for name in given:
        if name not in known:
            raise ConfigurationError(
                f"{_SETTING} has '{name}', which is not an option for"
                f" PostgreSQL{suggest(name, known)} There are:"
                f" {', '.join(sorted(known))}. Parameters of libpq, such as 'sslmode',"
                " are in 'QCONSUME_BROKER_URL': postgresql://host/name?sslmode=require"
            )
    pooled = _read_option(given, "transaction_pooling", False, "true or false")
    size = _read_option(given, "pool_size", _DEFAULT_POOL_SIZE, "a whole number")
    if not 1 <= size <= _MAX_POOL_SIZE:
        raise ConfigurationError(
            f"'pool_size' in {_SETTING} must be from 1 to {_MAX_POOL_SIZE}, not {size}."
        )
    return PostgresOptions(
        {**_PARAMETERS, **_read_url(settings.broker_url)},
        _create_session(_read_option(given, "schema", "", "a text"), pooled),
        size,
        pooled,
    )


def _create_session(schema: str, pooled: bool) -> dict[str, str]:
    if not pooled:
        path = {"search_path": '"{}"'.format(schema.replace('"', '""'))}
        return {**_SESSION, **(path if schema else {})}
    if schema:
        raise ConfigurationError(
            f"'schema' and 'transaction_pooling' in {_SETTING} exclude each other: a"
            " pooler does not keep it. Use: ALTER ROLE … SET search_path = …"
        )
    return {}


def _read_url(url: str) -> dict[str, t.Any]:
    try:
        return conninfo_to_dict(_SCHEME.sub("postgresql", url))
    except psycopg.Error as error:
        # A part of the URL may be the password, so only a parameter's name is shown.
        unknown = re.search(r'^invalid URI query parameter: "(\w+)"', str(error))
        why = f"libpq has no parameter {quote(unknown[1])}" if unknown else "it is not"
        why += "" if unknown else " of the form postgresql://user:password@host/name"
    raise ConfigurationError(
        f"'QCONSUME_BROKER_URL' cannot be read: {why}. Write special characters of a"
        " user or a password as urllib.parse.quote(it, safe='') gives them."
    )


def _read_option(
    given: Mapping[str, t.Any], name: str, default: t.Any, kind: str
) -> t.Any:
    value = given.get(name, default)
    if type(value) is not type(default):
        raise ConfigurationError(
            f"'{name}' in {_SETTING} must be {kind}, not {quote(value)}."
        )
    return value
