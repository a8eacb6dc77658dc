"""Which broker a URL means. Imports a broker's package when it is asked for."""

from __future__ import annotations

# The first connection would import these, which the child of a fork cannot do while
# another thread does, and the second one not at all once the interpreter shuts down.
import concurrent.futures.thread  # noqa: F401
import encodings.idna  # noqa: F401
import typing as t
from importlib import import_module
from ipaddress import IPv6Address
from urllib.parse import SplitResult
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from ..settings import Settings
from ..text import quote
from .base import Broker
from .topology import Topology

#: Scheme → module and class. ``+`` variants of kombu (``redis+socket``) count by the
#: part before it.
_BROKERS = {
    "amqp": ("..brokers.rabbitmq", "RabbitMQ"),
    "amqps": ("..brokers.rabbitmq", "RabbitMQ"),
    "pyamqp": ("..brokers.rabbitmq", "RabbitMQ"),
    "redis": ("..brokers.redis_lists", "RedisLists"),
    "rediss": ("..brokers.redis_lists", "RedisLists"),
    "sentinel": ("..brokers.redis_lists", "RedisLists"),
    "redis-streams": ("..brokers.redis_streams", "RedisStreams"),
    "rediss-streams": ("..brokers.redis_streams", "RedisStreams"),
    "sentinel-streams": ("..brokers.redis_streams", "RedisStreams"),
    "kafka": ("..brokers.kafka", "Kafka"),
    "kafkas": ("..brokers.kafka", "Kafka"),
    "memory": ("..brokers.memory", "Memory"),
}


def check_url(url: str) -> None:
    """Refuse a URL of no known broker, as soon as it is configured.

    :raises ConfigurationError: for a scheme that is not known, or a login that breaks
        the URL.
    """
    if not _is_text(url):
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' cannot be read: it has bytes that are not UTF-8."
        )
    if _scheme(url) not in _BROKERS:
        raise ConfigurationError(
            f"'QCONSUME_BROKER_URL' begins with {quote(_scheme(url))}, which"
            f" is no broker known here. Use one of: {', '.join(_BROKERS)}."
        )
    if not all(map(_is_whole, url.split(";"))):
        # What it is cut into may be a password, so nothing of it is shown.
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' cannot be read: its host and port make no sense."
            " If a user or a password has one of '/?#[]%' in it, write it as"
            " urllib.parse.quote(it, safe='') gives it."
        )


def _is_text(url: str) -> bool:
    """Whether there are no lone surrogates, as bytes of the environment become."""
    return url.isprintable() or url == url.encode(errors="ignore").decode()


def _is_whole(url: str) -> bool:
    """Whether an address is not cut at a sign of its password."""
    try:
        parts = urlsplit(url)
        # Several hosts are for those brokers to read that have them.
        if "," not in parts.netloc:
            _ = parts.port
            _check_brackets(parts)
    except ValueError:
        return False
    rest = parts.path + parts.fragment + ("" if parts.hostname else parts.query)
    return "@" in parts.netloc or "@" not in rest


def _check_brackets(parts: SplitResult) -> None:
    """As Python itself does since 3.11.4: they are around an address of version 6.

    :raises ValueError: if they are not.
    """
    login, _, host = parts.netloc.rpartition("@")
    if "[" in host:
        IPv6Address(parts.hostname or "")
    if "[" in login or "]" in login:
        raise ValueError(login)


def list_brokers() -> list[type[Broker]]:
    """All kinds of brokers that a URL can mean, each once."""
    return [_imported(*where) for where in dict.fromkeys(_BROKERS.values())]


def open_broker(settings: Settings, topology: Topology) -> Broker:
    """The broker of ``QCONSUME_BROKER_URL``; nothing is connected yet.

    :raises ConfigurationError: for a scheme that is not known, or not installed.
    :raises RegistrationError: for a name that the broker cannot have, or that would
        stand for two things there.
    """
    check_url(settings.broker_url)
    scheme = _scheme(settings.broker_url)
    module, name = _BROKERS[scheme]
    try:
        found = _imported(module, name)
    except ImportError as error:
        raise ConfigurationError(
            f"The broker '{scheme}' needs a package that is not installed ({error})."
            f" Install it by: pip install 'Flask-QConsume[{_extra(module)}]'"
        ) from error
    broker = found(settings, topology)
    broker.check_names()
    return broker


def _imported(module: str, name: str) -> type[Broker]:
    return t.cast(type[Broker], getattr(import_module(module, __package__), name))


def _extra(module: str) -> str:
    return "kafka" if module.endswith(".kafka") else "redis"


def _scheme(url: str) -> str:
    return url.partition(":")[0].partition("+")[0]
