"""Selects a broker's class by the URL's scheme, and imports it when it is needed."""

from __future__ import annotations

# Imported here for the first connection: the child of a fork cannot import the first
# while another thread does, and no thread can once the interpreter shuts down.
import concurrent.futures.thread  # noqa: F401
import encodings.idna  # noqa: F401
import typing as t
from importlib import import_module
from ipaddress import IPv6Address
from urllib.parse import SplitResult
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from ..settings import Settings
from ..settings import suggest
from ..text import quote
from .base import Broker
from .topology import Topology

#: Module and class of the broker, by the scheme, or by its part before a ``+``
#: (``redis+socket``).
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
    "sqlite": ("..brokers.sql.sqlite", "Sqlite"),
    "postgresql": ("..brokers.sql.postgresql", "PostgreSQL"),
    "postgres": ("..brokers.sql.postgresql", "PostgreSQL"),
    "memory": ("..brokers.memory", "Memory"),
}

#: The driver of each database, which a URL may name after a ``+``.
_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "postgres": "psycopg"}


def check_url(url: str) -> None:
    """Refuse a URL that has an unknown scheme, or cannot be parsed.

    :raises ConfigurationError: for an unknown scheme or driver, or a login that breaks
        the URL.
    """
    if not _is_text(url):
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' cannot be read: it has bytes that are not UTF-8."
        )
    _check_scheme(url.partition(":")[0])
    if not all(map(_is_whole, url.split(";"))):
        # A part of the URL may be the password, so no part is shown.
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' cannot be read: its host and port make no sense."
            " If a user or a password has one of '/?#[]%' in it, write it as"
            " urllib.parse.quote(it, safe='') gives it."
        )


def _check_scheme(scheme: str) -> None:
    name, plus, driver = scheme.partition("+")
    if name not in _BROKERS:
        # kombu calls its own transport for databases 'sqla+sqlite'.
        meant = suggest(driver if driver in _BROKERS else name, _BROKERS)
        raise ConfigurationError(
            f"'QCONSUME_BROKER_URL' begins with {quote(scheme)}, which means no known"
            f" broker{meant} Use one of: {', '.join(_BROKERS)}."
        )
    if plus and name in _DRIVERS and driver != _DRIVERS[name]:
        raise ConfigurationError(
            f"'QCONSUME_BROKER_URL' begins with {quote(scheme)}, and this broker uses"
            f" the driver '{_DRIVERS[name]}'. Write '{name}://…'."
        )


def _is_text(url: str) -> bool:
    """Return whether all characters of a URL can be encoded as UTF-8."""
    return url.isprintable() or url == url.encode(errors="ignore").decode()


def _is_whole(url: str) -> bool:
    """Return false if a ``/`` in the password has cut the URL into wrong parts.

    The name of a file may have any character.
    """
    try:
        url_parts = urlsplit(url)
        # Brokers that have several hosts parse them on their own.
        if "," not in url_parts.netloc:
            _ = url_parts.port
            _check_brackets(url_parts)
    except ValueError:
        return False
    rest = (
        url_parts.path
        + url_parts.fragment
        + ("" if url_parts.hostname else url_parts.query)
    )
    is_file = _read_scheme(url) == "sqlite"
    return is_file or "@" in url_parts.netloc or "@" not in rest


def _check_brackets(url_parts: SplitResult) -> None:
    """Check that brackets enclose an IPv6 address, as Python does since 3.11.4.

    :raises ValueError: for any other text in brackets.
    """
    login, _, host = url_parts.netloc.rpartition("@")
    if "[" in host:
        IPv6Address(url_parts.hostname or "")
    if "[" in login or "]" in login:
        raise ValueError(login)


def list_brokers() -> list[type[Broker]]:
    """Return the classes of all brokers; this imports their modules."""
    return [_import_class(*where) for where in dict.fromkeys(_BROKERS.values())]


def open_broker(settings: Settings, topology: Topology) -> Broker:
    """Create the broker for ``QCONSUME_BROKER_URL``, without connecting yet.

    :raises ConfigurationError: for an unknown scheme, or a package that is not
        installed.
    :raises RegistrationError: for a name that the broker does not allow, or that has
        two uses on the broker.
    """
    check_url(settings.broker_url)
    scheme = _read_scheme(settings.broker_url)
    module, name = _BROKERS[scheme]
    try:
        broker_class = _import_class(module, name)
    except ImportError as error:
        raise ConfigurationError(
            f"The broker '{scheme}' needs a package that is not installed ({error})."
            f" Install it by: pip install 'Flask-QConsume[{_find_extra(module)}]'"
        ) from error
    broker = broker_class(settings, topology)
    broker.check_names()
    return broker


def _import_class(module: str, name: str) -> type[Broker]:
    return t.cast(type[Broker], getattr(import_module(module, __package__), name))


def _find_extra(module: str) -> str:
    if ".sql." in module:
        return "sql"
    return "kafka" if module.endswith(".kafka") else "redis"


def _read_scheme(url: str) -> str:
    return url.partition(":")[0].partition("+")[0]
