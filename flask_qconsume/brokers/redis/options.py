"""Values of the transport options for Redis, checked before anything is connected."""

from __future__ import annotations

import math
import typing as t
from collections.abc import Callable
from collections.abc import Mapping

from ...broker import tls
from ...errors import ConfigurationError
from ...text import quote

URL = "'QCONSUME_BROKER_URL'"

ADVICE = tls.Advice(
    authority=f"{URL}: rediss://host?ssl_ca_certs=/path",
    own=f"{URL}: rediss://host?ssl_certfile=/path&ssl_keyfile=/path",
    plain="redis://",
    secure="rediss://",
)

#: The options in the URL that name files or folders.
FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


def check_option(name: str, value: t.Any) -> None:
    """Refuse a value that redis-py would fail with while it connects.

    :raises ConfigurationError: that says what it must be.
    """
    if name == "ssl" or name.startswith("ssl_"):
        raise ConfigurationError(
            f"'QCONSUME_TRANSPORT_OPTIONS' has '{name}'. For Redis, options of TLS are"
            f" in {ADVICE.authority}"
        )
    fits, kind = _KINDS.get(name, (None, ""))
    if fits is not None and value is not None and not fits(value):
        raise ConfigurationError(
            f"'{name}' in 'QCONSUME_TRANSPORT_OPTIONS' must be {kind}, not"
            f" {quote(value)}."
        )


def _is_number(value: t.Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < math.inf


def _is_mapping(value: t.Any) -> bool:
    return isinstance(value, Mapping)


_SECONDS = (_is_number, "seconds")
_MAPPING = (_is_mapping, "a mapping")
_KINDS: dict[str, tuple[Callable[[t.Any], bool], str]] = {
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
