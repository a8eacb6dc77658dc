"""Transport options of both brokers on Redis, checked before a connection is opened."""

from __future__ import annotations

import math
import typing as t
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping

from ...broker import tls
from ...errors import ConfigurationError
from ...settings import suggest
from ...text import quote

#: The highest priority; the lowest is 0.
HIGHEST = 9
URL = "'QCONSUME_BROKER_URL'"

ADVICE = tls.Advice(
    authority=f"{URL}: rediss://host?ssl_ca_certs=/path",
    own=f"{URL}: rediss://host?ssl_certfile=/path&ssl_keyfile=/path",
    plain="redis://",
    secure="rediss://",
)

#: The options in the URL that name files or folders.
FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
#: Number of replicas that must have a message before it is confirmed.
REPLICAS = "wait_replicas"
#: Seconds to wait for the replicas.
REPLICAS_TIMEOUT = "wait_timeout"
REPLICA_OPTIONS = (REPLICAS, REPLICAS_TIMEOUT)
#: Passed on to kombu, which connects.
CONNECTION_OPTIONS = (
    "client_name",
    "health_check_interval",
    "master_name",
    "max_connections",
    "min_other_sentinels",
    "sentinel_kwargs",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
    "socket_timeout",
)


def check_option(name: str, value: t.Any) -> None:
    """Refuse a value of an option that would make redis-py fail when connecting.

    :raises ConfigurationError: with the values that are allowed.
    """
    if name == "ssl" or name.startswith("ssl_"):
        raise ConfigurationError(
            f"'QCONSUME_TRANSPORT_OPTIONS' has '{name}'. For Redis, options of TLS are"
            f" in {ADVICE.authority}"
        )
    fits, kind = _CHECKS.get(name, (None, ""))
    if fits is not None and value is not None and not fits(value):
        raise ConfigurationError(
            f"'{name}' in 'QCONSUME_TRANSPORT_OPTIONS' must be {kind}, not"
            f" {quote(value)}."
        )


def check_known(name: str, known: Collection[str], broker: str) -> None:
    """Refuse an option that does not exist, and suggest a similar name.

    :raises ConfigurationError: with a suggestion.
    """
    if name not in known:
        raise ConfigurationError(
            f"'QCONSUME_TRANSPORT_OPTIONS' has '{name}', which is not an option for"
            f" {broker}{suggest(name, known)} There are: {', '.join(sorted(known))}."
        )


def _is_number(value: t.Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < math.inf


def _is_mapping(value: t.Any) -> bool:
    return isinstance(value, Mapping)


_SECONDS = (_is_number, "seconds")
_MAPPING = (_is_mapping, "a mapping")
_CHECKS: dict[str, tuple[Callable[[t.Any], bool], str]] = {
    "health_check_interval": _SECONDS,
    "max_connections": (
        lambda value: type(value) is int and value > 0,
        "a whole number",
    ),
    "sentinel_kwargs": _MAPPING,
    "socket_connect_timeout": _SECONDS,
    "socket_keepalive_options": _MAPPING,
    "socket_timeout": _SECONDS,
}


def select_connection_options(options: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Select the transport options that kombu needs for its connections."""
    return {name: options[name] for name in CONNECTION_OPTIONS if name in options}


def read_text(options: Mapping[str, t.Any], name: str, default: str) -> str:
    """Return an option that is a text; only the prefix of keys may be empty."""
    value = options.get(name, default)
    if not isinstance(value, str) or (not value and name != "global_keyprefix"):
        raise ConfigurationError(
            f"'{name}' in 'QCONSUME_TRANSPORT_OPTIONS' must be a text, not"
            f" {quote(value)}."
        )
    return value


def read_priority_steps(value: t.Any) -> tuple[int, ...]:
    """Return the option ``priority_steps``, whose numbers must ascend."""
    steps = tuple(value) if isinstance(value, (list, tuple, range)) else ()
    whole = all(isinstance(s, int) and not isinstance(s, bool) for s in steps)
    if not steps or not whole or steps[0] < 0 or list(steps) != sorted(set(steps)):
        raise ConfigurationError(
            "'priority_steps' in 'QCONSUME_TRANSPORT_OPTIONS' must be whole numbers"
            f" from 0, each larger than the one before, not {quote(value)}."
        )
    return steps
