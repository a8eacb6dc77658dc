"""Opens connections: resolves names, and prepares the session."""

from __future__ import annotations

import socket
import time
import typing as t
from collections.abc import Iterable
from collections.abc import Mapping

import psycopg

from ....errors import UnsupportedByBroker
from .connection import PostgresConnection
from .errors import ServerIsReadOnly
from .options import PostgresOptions

#: PostgreSQL 14, the first that notices a lost client while it executes a statement.
_LOWEST_VERSION = 140_000
#: Executions after which a statement is prepared; psycopg's own default.
_PREPARE_THRESHOLD = 5
#: Seconds for preparing a session.
_PREPARE_TIMEOUT_SECONDS = 5.0

_PREPARE = (
    "SELECT pg_is_in_recovery(), array(SELECT set_config(name, value, false)"
    " FROM unnest(%s::text[], %s::text[]) AS setting (name, value))"
)


def connect(options: PostgresOptions) -> PostgresConnection:
    """Open a connection, which commits each statement unless it begins a transaction.

    :raises psycopg.Error: if that fails.
    :raises ServerIsReadOnly: if the server is a standby.
    :raises UnsupportedByBroker: if the server is too old.
    """
    connection = PostgresConnection.connect(
        **resolve_hosts(options.parameters),
        autocommit=True,
        prepare_threshold=None if options.transaction_pooling else _PREPARE_THRESHOLD,
    )
    try:
        _prepare(connection, options.session)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: PostgresConnection, session: Mapping[str, str]) -> None:
    connection.deadline = time.monotonic() + _PREPARE_TIMEOUT_SECONDS
    check_version(connection.info.server_version)
    row = connection.execute(_PREPARE, [list(session), list(session.values())])
    (is_standby, _), *_ = row.fetchall()
    if is_standby:
        raise ServerIsReadOnly(
            "This PostgreSQL is a standby, which can only be read. If that lasts,"
            " 'QCONSUME_BROKER_URL' must name the primary; or name all servers, and"
            " let them be asked: postgresql://a,b/name?target_session_attrs=read-write"
        )


def check_version(version: int) -> None:
    """Refuse a server that is too old.

    :param version: The version as PostgreSQL counts it: 150004 means 15.4.
    :raises UnsupportedByBroker: with the lowest version.
    """
    if version < _LOWEST_VERSION:
        raise UnsupportedByBroker(
            f"This server is PostgreSQL {version // 10_000}, and the lowest version"
            f" that works is {_LOWEST_VERSION // 10_000}."
        )


def resolve_hosts(parameters: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the parameters with the addresses of all hosts.

    libpq can resolve names, but gevent's event loop stands still meanwhile.

    :raises psycopg.OperationalError: if no host has an address.
    """
    hosts = str(parameters.get("host") or "")
    if not hosts or "hostaddr" in parameters or "service" in parameters:
        return dict(parameters)
    names = hosts.split(",")
    ports = str(parameters.get("port") or "").split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    if len(ports) != len(names):
        return dict(parameters)  # libpq explains the error.
    errors: list[OSError] = []
    found = [
        (name, address, port)
        for name, port in zip(names, ports, strict=True)
        for address in _find_addresses(name, errors)
    ]
    if not found:
        raise psycopg.OperationalError(f"no address of '{hosts}' is known: {errors[0]}")
    columns = (",".join(column) for column in zip(*found, strict=True))
    return {
        **parameters,
        **dict(zip(("host", "hostaddr", "port"), columns, strict=True)),
    }


def _find_addresses(name: str, errors: list[OSError]) -> Iterable[str]:
    """Return the addresses of a host, or ``""`` for a Unix socket."""
    if not name or name[0] in "/@":
        return [""]
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        errors.append(error)
        return []
    return dict.fromkeys(str(address[0]) for *_, address in found)
