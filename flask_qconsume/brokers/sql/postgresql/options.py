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

#: The most connections that a process has for its calls, by default. It has another
#: one that listens for announcements.
_DEFAULT_POOL_SIZE = 5
_LARGEST_POOL = 100

_SCHEME = re.compile(r"^postgres(ql)?(\+psycopg)?(?=://)")

#: Parameters of libpq, unless the URL has others. A connection that is cut without a
#: word is noticed after 10 + 3 * 5 seconds; calls have time limits of their own.
_PARAMETERS: t.Mapping[str, str | int] = {
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
    # The plan that is made while a table is nearly empty is kept when it is full: let
    # it use the indexes from the beginning. Each statement has one.
    "enable_seqscan": "off",
    # The cost of a sequential scan that is avoided would count as a reason to compile.
    "jit": "off",
}

_WHERE = "'QCONSUME_TRANSPORT_OPTIONS'"


@dataclass(frozen=True)
class PostgresOptions:
    """What a broker in PostgreSQL needs to connect."""

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
                f"{_WHERE} has '{name}', which is not an option for"
                f" PostgreSQL{suggest(name, known)} There are:"
                f" {', '.join(sorted(known))}. Parameters of libpq, such as 'sslmode',"
                " are in 'QCONSUME_BROKER_URL': postgresql://host/name?sslmode=require"
            )
    pooled = _read_option(given, "transaction_pooling", False, "true or false")
    size = _read_option(given, "pool_size", _DEFAULT_POOL_SIZE, "a whole number")
    if not 1 <= size <= _LARGEST_POOL:
        raise ConfigurationError(
            f"'pool_size' in {_WHERE} must be from 1 to {_LARGEST_POOL}, not {size}."
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
            f"'schema' and 'transaction_pooling' in {_WHERE} exclude each other: a"
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
            f"'{name}' in {_WHERE} must be {kind}, not {quote(value)}."
        )
    return value
