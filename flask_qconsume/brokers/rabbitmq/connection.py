"""Connections to RabbitMQ: opened, used for a few requests, disconnected.

kombu's ``Connection`` only parses the URL and the options, and is not kept: its
property ``connection`` would later open another connection, without consumers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import typing as t

from kombu import Connection as Client  # type: ignore[attr-defined]
from kombu.utils.url import maybe_sanitize_url

from ...broker import tls
from ...errors import BrokerError
from ...errors import BrokerRefused
from ...errors import BrokerUnavailable
from ...errors import ConfigurationError
from ...settings import Settings
from .amqp.transport import Connection
from .amqp.transport import TLSTransport
from .amqp.transport import Transport
from .errors import LOST
from .errors import find_refusal
from .errors import translate_error
from .options import ADVICE
from .options import check_options
from .options import check_tls

#: Errors of an address where nothing listens, so that its TLS cannot be the problem.
_NO_LISTENER = (ConnectionRefusedError, TimeoutError, socket.gaierror)

#: Seconds that a write may take: the timeout of the socket, once it is open. It is
#: never changed for a single read, as py-amqp offers: it would change for a greenlet
#: that writes at that moment as well.
SOCKET_TIMEOUT = 30.0


def open_connection(settings: Settings, name: str) -> Connection:
    """Connect to the first address of the URL that answers.

    :param name: The name of the connection in the broker's management pages.
    :raises BrokerUnavailable: if no address answers.
    :raises BrokerRefused: if no address accepts the connection and at least one refuses
        it. All belong to one broker, so another attempt would be refused as well.
    """
    problems: list[BrokerError] = []
    for url in settings.broker_url.split(";"):
        client = _kombu_client(settings, url, name)
        try:
            return _establish(client)
        except LOST as error:
            problem = _describe_problem(error, url, client)
            problem.__cause__ = error
            problems.append(problem)
    final = (
        refusal for refusal in problems if not isinstance(refusal, BrokerUnavailable)
    )
    raise next(final, problems[-1])


def _describe_problem(error: Exception, url: str, client: t.Any) -> BrokerError:
    where = f"No connection to RabbitMQ at '{maybe_sanitize_url(url)}'"
    tls_problem = _find_tls_problem(error, client)
    if tls_problem:
        return BrokerRefused(f"{where}: {tls_problem}")
    return translate_error(error, where)


def _find_tls_problem(error: Exception, client: t.Any) -> str | None:
    if client.ssl:
        return tls.explain_error(error, ADVICE)
    if isinstance(error, _NO_LISTENER) or find_refusal(error) is not None:
        return None
    return tls.diagnose_plain_connection(*_find_address(client), ADVICE)


def check_connection_options(settings: Settings) -> None:
    """Check the broker's URL and the transport options, without connecting.

    :raises ConfigurationError: with the reason.
    """
    check_options(settings.transport_options)
    for url in settings.broker_url.split(";"):
        try:
            options = _kombu_client(settings, url, "").ssl
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigurationError(
                "'QCONSUME_BROKER_URL' cannot be used for RabbitMQ:"
                f" {tls.explain_option_error(error)}."
            ) from error
        if options:
            check_tls(options)


def list_addresses(settings: Settings) -> t.Iterator[tuple[str, int]]:
    """Yield the hosts and ports of the broker's URL."""
    for url in settings.broker_url.split(";"):
        yield _find_address(_kombu_client(settings, url, ""))


def _find_address(client: t.Any) -> tuple[str, int]:
    default_port = client.transport.default_connection_params["port"]
    return client.hostname, client.port or default_port


def find_virtual_host(settings: Settings) -> str:
    """Return the virtual host of RabbitMQ that the broker's URL names."""
    url = settings.broker_url.split(";")[0]
    return str(_kombu_client(settings, url, "").virtual_host)


def _kombu_client(settings: Settings, url: str, name: str) -> t.Any:
    options = dict(settings.transport_options)
    secure = options.pop("ssl", None)
    if secure is None or secure == {}:
        secure = url.startswith("amqps:")
    if not secure and url.startswith("amqps:"):
        raise ValueError("it begins with 'amqps://', and the option 'ssl' is false")
    client: t.Any = Client(  # type: ignore[no-untyped-call]
        url,
        transport=TLSTransport if secure else Transport,
        heartbeat=max(1, int(settings.heartbeat)),
        transport_options={
            **options,
            "socket_settings": {
                **_socket_options(),
                **options.get("socket_settings", {}),
            },
            "client_properties": {
                "product": "Flask-QConsume",
                "connection_name": f"{name} ({socket.gethostname()}:{os.getpid()})",
                **options.get("client_properties", {}),
            },
        },
    )
    client.ssl = _tls_options(secure, client)
    return client


def _tls_options(ssl_options: t.Any, client: t.Any) -> t.Any:
    """Return the TLS options of the URL and the settings, with the server's name.

    The server's certificate is checked for that name. py-amqp alone would check no
    name, and kombu would check an address in place of ``localhost``.
    """
    of_url = _tls_options_of_url(client.ssl)
    if of_url and not ssl_options:
        raise ValueError("it has options of TLS, and does not begin with 'amqps://'")
    if not ssl_options or "context" in (
        options := {} if ssl_options is True else dict(ssl_options)
    ):
        return ssl_options
    options = of_url | options
    if options.get("cert_reqs") == ssl.CERT_NONE:
        return options
    return {"server_hostname": client.hostname, **options}


def _tls_options_of_url(url_options: t.Any) -> dict[str, t.Any]:
    """Return a URL's options for TLS, as py-amqp names them."""
    if not isinstance(url_options, dict):
        return {}
    return {name.removeprefix("ssl_"): value for name, value in url_options.items()}


def _socket_options() -> dict[int, int]:
    # By py-amqp's default, a connection breaks after one second without the peer's TCP
    # acknowledgement, which an alarm of the broker or a slow network exceeds easily.
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return {}
    return {socket.TCP_USER_TIMEOUT: int(SOCKET_TIMEOUT * 1000)}


def _establish(client: t.Any) -> Connection:
    connection: Connection = client.transport.establish_connection()
    connection.client = None
    # Until our heartbeat starts, the socket's timeout ends a connection on which the
    # broker sends nothing for two intervals: a living broker sends heartbeats.
    timeout = min(SOCKET_TIMEOUT, 2 * connection.heartbeat or SOCKET_TIMEOUT)
    connection.sock.settimeout(timeout)
    return connection


def allow_slow_writes(connection: Connection) -> None:
    """Raise the socket's time-out after connecting, so that writes may take long."""
    connection.sock.settimeout(SOCKET_TIMEOUT)


@contextlib.contextmanager
def open_channel(settings: Settings, doing: str) -> t.Iterator[t.Any]:
    """Open a connection with a channel for the requests of a ``with`` block.

    :param doing: The operation, for error messages.
    """
    connection = open_connection(settings, doing)
    try:
        yield connection.channel()
    except LOST as error:
        disconnect(connection)
        raise translate_error(error, f"RabbitMQ: {doing} failed") from error
    finally:
        with contextlib.suppress(Exception):
            if connection.connected:
                # Answered once our acknowledgements have taken effect.
                connection.close()
        disconnect(connection)


def disconnect(connection: Connection) -> None:
    """Close a connection's socket, even while another thread reads from it."""
    with contextlib.suppress(Exception):
        transport = connection._transport
        if transport is not None and transport.sock is not None:
            # ``close`` would not wake a thread that is blocked in ``recv``.
            transport.sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(Exception):
        connection.collect()
