"""Connections to RabbitMQ: opened, used for a moment, hung up; errors in our words.

kombu's ``Connection`` is used to read the URL and the options, and never kept: asked
for its connection later it would make a new one, silently and without any consumer.
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

#: Nobody is there who could speak TLS.
_NOT_THERE = (ConnectionRefusedError, TimeoutError, socket.gaierror)

#: Seconds that a write may be stuck: the timeout of the socket, set once it is open.
#: Changing it around single reads, as py-amqp offers, changes it for whoever writes at
#: that moment, too.
SOCKET_TIMEOUT = 30.0


def open_connection(settings: Settings, name: str) -> Connection:
    """Connect to the first address of the URL that answers.

    :param name: What the broker's own pages call this connection.
    :raises BrokerUnavailable: if none does.
    :raises BrokerRefused: if one of them refuses us, and no other one takes us: those
        that are away are of the same broker.
    """
    problems: list[BrokerError] = []
    for url in settings.broker_url.split(";"):
        client = _client(settings, url, name)
        try:
            return _established(client)
        except LOST as error:
            where = f"No connection to RabbitMQ at '{maybe_sanitize_url(url)}'"
            said = _problem_with_tls(error, client)
            problem = (
                BrokerRefused(f"{where}: {said}")
                if said
                else translate_error(error, where)
            )
            problem.__cause__ = error
            problems.append(problem)
    final = (each for each in problems if not isinstance(each, BrokerUnavailable))
    raise next(final, problems[-1])


def _problem_with_tls(error: Exception, client: t.Any) -> str | None:
    if client.ssl:
        return tls.explain_error(error, ADVICE)
    if isinstance(error, _NOT_THERE) or find_refusal(error) is not None:
        return None
    return tls.diagnose_plain_connection(*_address(client), ADVICE)


def check(settings: Settings) -> None:
    """Refuse a URL and options that no connection can be opened with.

    :raises ConfigurationError: that says what is wrong with them.
    """
    check_options(settings.transport_options)
    for url in settings.broker_url.split(";"):
        try:
            options = _client(settings, url, "").ssl
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigurationError(
                "'QCONSUME_BROKER_URL' cannot be used for RabbitMQ:"
                f" {tls.explain_option_error(error)}."
            ) from error
        if options:
            check_tls(options)


def addresses(settings: Settings) -> t.Iterator[tuple[str, int]]:
    """The hosts and ports of the URL."""
    for url in settings.broker_url.split(";"):
        yield _address(_client(settings, url, ""))


def _address(client: t.Any) -> tuple[str, int]:
    usual = client.transport.default_connection_params["port"]
    return client.hostname, client.port or usual


def virtual_host(settings: Settings) -> str:
    """The virtual host of the URL."""
    return str(_client(settings, settings.broker_url.split(";")[0], "").virtual_host)


def _client(settings: Settings, url: str, name: str) -> t.Any:
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
            "socket_settings": {**_sockets(), **options.get("socket_settings", {})},
            "client_properties": {
                "product": "Flask-QConsume",
                "connection_name": f"{name} ({socket.gethostname()}:{os.getpid()})",
                **options.get("client_properties", {}),
            },
        },
    )
    client.ssl = _tls(secure, client)
    return client


def _tls(given: t.Any, client: t.Any) -> t.Any:
    """The TLS options, with the server's name checked unless they say otherwise.

    py-amqp checks none by default, and kombu makes an address of ``localhost``.
    """
    of_url = _of_url(client.ssl)
    if of_url and not given:
        raise ValueError("it has options of TLS, and does not begin with 'amqps://'")
    if not given or "context" in (options := _mapping(given)):
        return given
    options = of_url | options
    if options.get("cert_reqs") == ssl.CERT_NONE:
        return options
    return {"server_hostname": client.hostname, **options}


def _mapping(given: t.Any) -> dict[str, t.Any]:
    return {} if given is True else dict(given)


def _of_url(given: t.Any) -> dict[str, t.Any]:
    """The TLS options of the URL's query, by py-amqp's names: without ``ssl_``."""
    if not isinstance(given, dict):
        return {}
    return {name.removeprefix("ssl_"): value for name, value in given.items()}


def _sockets() -> dict[int, int]:
    # py-amqp gives a connection up after one second without the peer's TCP
    # acknowledgement, which an alarm at the broker or a slow network easily takes.
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return {}
    return {socket.TCP_USER_TIMEOUT: int(SOCKET_TIMEOUT * 1000)}


def _established(client: t.Any) -> Connection:
    raw: Connection = client.transport.establish_connection()
    raw.client = None
    # Nobody beats yet. A broker that is there does, so one that says nothing at all for
    # two intervals is not.
    raw.sock.settimeout(min(SOCKET_TIMEOUT, 2 * raw.heartbeat or SOCKET_TIMEOUT))
    return raw


def opened(raw: Connection) -> None:
    """From now on a pulse judges the broker's silence, and writes may take long."""
    raw.sock.settimeout(SOCKET_TIMEOUT)


@contextlib.contextmanager
def requests(settings: Settings, doing: str) -> t.Iterator[t.Any]:
    """A channel of a connection of its own, for a few requests with answers.

    :param doing: What is being done, for the error messages.
    """
    raw = open_connection(settings, doing)
    try:
        yield raw.channel()
    except LOST as error:
        hang_up(raw)
        raise translate_error(error, f"RabbitMQ: {doing} failed") from error
    finally:
        with contextlib.suppress(Exception):
            if raw.connected:
                # The answer means that our acknowledgements count.
                raw.close()
        hang_up(raw)


def hang_up(raw: Connection) -> None:
    """Free the connection, whatever state it is in. Who reads it is woken."""
    with contextlib.suppress(Exception):
        if raw._transport is not None and raw._transport.sock is not None:
            # A thread that is blocked in ``recv`` is woken by this, not by ``close``.
            raw._transport.sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(Exception):
        raw.collect()
