"""TLS of connections to Redis: checked before it is used, and told when it fails."""

from __future__ import annotations

import socket
import typing as t

from redis import exceptions
from redis.connection import SSLConnection

from ...broker import tls
from .options import ADVICE
from .options import FILES
from .options import URL

#: Options by which redis-py asks more of a certificate, once it has a connection.
_LATER = ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled")

#: Seconds that Redis has to answer.
_LOOK = 1.0


def check_connection(pool: t.Any) -> None:
    """Refuse options that redis-py cannot make a connection with; none is opened.

    :raises ConfigurationError: for a file that cannot be read.
    :raises Exception: what redis-py raises for the others.
    """
    options = pool.connection_kwargs
    tls.check_files(options, FILES, URL)
    made = pool.make_connection()
    secure = issubclass(pool.connection_class, SSLConnection)
    if secure and not any(map(options.get, _LATER)):
        # As it will be wrapped when it is connected.
        with socket.socket() as plain:
            made._wrap_socket_with_ssl(plain).close()


def problem_of(pool: t.Any, error: Exception) -> str | None:
    """What is wrong with TLS, if that is why a connection failed."""
    if said := tls.explain_error(error, ADVICE):
        return said
    options = pool.connection_kwargs
    address = options.get("host"), options.get("port")
    if None in address or not _is_connected(error):
        return None
    if not issubclass(pool.connection_class, SSLConnection):
        # A server of TLS does not keep silent; one that is away does.
        silent = isinstance(error, exceptions.TimeoutError)
        return None if silent else tls.diagnose_plain_connection(*address, ADVICE)
    return tls.NO_TLS_ADVICE.format(ADVICE.plain) if _speaks_redis(*address) else None


def _is_connected(error: Exception) -> bool:
    """Whether there was somebody who could have spoken another way."""
    if isinstance(error, exceptions.ResponseError):
        return False
    return not any(
        isinstance(each, (ConnectionRefusedError, socket.gaierror))
        for each in tls.iterate_causes(error)
    )


def _speaks_redis(host: str, port: int) -> bool:
    """Whether the server answers without TLS; to the first bytes of TLS it does not."""
    try:
        with socket.create_connection((host, port), _LOOK) as found:
            found.sendall(b"PING\r\n")
            return found.recv(1) in (b"+", b"-")
    except OSError:
        return False
