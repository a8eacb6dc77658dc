"""TLS of connections to Redis: checks of the options, explanations of failures."""

from __future__ import annotations

import socket
import typing as t

from redis import exceptions
from redis.connection import SSLConnection

from ...broker import tls
from .options import ADVICE
from .options import FILES
from .options import URL

#: Options with which redis-py checks the certificate once it is connected.
_OCSP_OPTIONS = ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled")

#: Seconds within which Redis must answer.
_PROBE_TIMEOUT_SECONDS = 1.0


def check_connection(pool: t.Any) -> None:
    """Check TLS options before the first connection is opened.

    :raises ConfigurationError: for a file that cannot be read.
    :raises Exception: an error of redis-py, for other options that cannot work.
    """
    options = pool.connection_kwargs
    tls.check_files(options, FILES, URL)
    connection = pool.make_connection()
    secure = issubclass(pool.connection_class, SSLConnection)
    if secure and not any(map(options.get, _OCSP_OPTIONS)):
        # redis-py does the same once it is connected.
        with socket.socket() as plain:
            connection._wrap_socket_with_ssl(plain).close()


def explain_failure(pool: t.Any, error: Exception) -> str | None:
    """Explain why TLS made a connection fail; ``None`` if TLS is not the cause."""
    if explanation := tls.explain_error(error, ADVICE):
        return explanation
    options = pool.connection_kwargs
    address = options.get("host"), options.get("port")
    if None in address or not _has_reached_server(error):
        return None
    if not issubclass(pool.connection_class, SSLConnection):
        # A server that expects TLS hangs up; only one that is away is silent.
        is_silent = isinstance(error, exceptions.TimeoutError)
        return None if is_silent else tls.diagnose_plain_connection(*address, ADVICE)
    if _answers_without_tls(*address):
        return tls.NO_TLS_ADVICE.format(ADVICE.plain)
    return None


def _has_reached_server(error: Exception) -> bool:
    """Return whether an error came after connecting, but before Redis answered."""
    if isinstance(error, exceptions.ResponseError):
        return False
    return not any(
        isinstance(cause, (ConnectionRefusedError, socket.gaierror))
        for cause in tls.iterate_causes(error)
    )


def _answers_without_tls(host: str, port: int) -> bool:
    """Return whether the server answers a command that is not encrypted."""
    try:
        with socket.create_connection(
            (host, port), _PROBE_TIMEOUT_SECONDS
        ) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in (b"+", b"-")
    except OSError:
        return False
