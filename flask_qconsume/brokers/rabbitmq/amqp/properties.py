"""The basic properties of a message, encoded as AMQP does. No I/O.

py-amqp takes three times as long. So this module encodes the types that nearly all
messages use, and leaves all other values, and errors, to py-amqp.
"""

from __future__ import annotations

import functools
import struct
import typing as t
from collections.abc import Callable
from collections.abc import Mapping

import amqp

_FLAGS = struct.Struct(">H")
_LONG = struct.Struct(">I")
_LONGLONG = struct.Struct(">Q")
_INT = struct.Struct(">ci")
_LARGE = struct.Struct(">cq")
_FLOAT = struct.Struct(">cd")

_Writer = Callable[[t.Any], bytes]


def encode_properties(properties: Mapping[str, t.Any]) -> bytes:
    """Encode properties: the flags, then the values.

    :param properties: Properties by AMQP's names, and ``headers``.
    :raises Exception: of many types, if a property cannot be encoded.
    """
    try:
        return _encode_usual(properties)
    except (_Unusual, ValueError, TypeError, AttributeError, struct.error):
        headers = properties.get("headers") or None
        table = {**properties, "application_headers": headers}
        return t.cast(bytes, amqp.Message(b"", **table)._serialize_properties())


class _Unusual(Exception):
    """Raised for a value that this module cannot encode, but py-amqp may."""


def _encode_usual(properties: Mapping[str, t.Any]) -> bytes:
    flags, writers = _find_writers(tuple(properties))
    return flags + b"".join([write(properties[name]) for name, write in writers])


@functools.lru_cache(256)
def _find_writers(
    names: tuple[str, ...],
) -> tuple[bytes, tuple[tuple[str, _Writer], ...]]:
    """Return the flags and the encoders for these properties, in AMQP's order."""
    amqp_properties = [
        amqp_property for amqp_property in _PROPERTIES if amqp_property[0] in names
    ]
    flags = sum(flag for _, flag, _ in amqp_properties)
    return _FLAGS.pack(flags), tuple(
        (name, write) for name, _, write in amqp_properties
    )


def _write_short(value: str) -> bytes:
    text = value.encode()
    return bytes((len(text),)) + text


#: The same with a cache, for properties with few different values.
_write_cached_short = functools.lru_cache(1024)(_write_short)


def _write_octet(value: int) -> bytes:
    return bytes((value,))


def _write_time(value: t.Any) -> bytes:
    return _LONGLONG.pack(value)


def _write_table(headers: Mapping[str, t.Any]) -> bytes:
    if not headers:
        raise _Unusual
    table = b"".join(
        [_write_cached_short(name) + _write_value(headers[name]) for name in headers]
    )
    return _LONG.pack(len(table)) + table


def _write_value(value: t.Any) -> bytes:
    kind = type(value)
    if kind is str:
        text = value.encode()
        return b"S" + _LONG.pack(len(text)) + t.cast(bytes, text)
    if kind is float:
        return _FLOAT.pack(b"d", value)
    if kind is int:
        small = -(2**31) < value < 2**31
        return _INT.pack(b"I", value) if small else _LARGE.pack(b"L", value)
    if kind is bool:
        return b"t\x01" if value else b"t\x00"
    raise _Unusual


#: Names, flags and writers, in the order of AMQP 0-9-1, 4.2.6.1.
_PROPERTIES: tuple[tuple[str, int, _Writer], ...] = (
    ("content_type", 1 << 15, _write_cached_short),
    ("content_encoding", 1 << 14, _write_cached_short),
    ("headers", 1 << 13, _write_table),
    ("delivery_mode", 1 << 12, _write_octet),
    ("priority", 1 << 11, _write_octet),
    ("correlation_id", 1 << 10, _write_short),
    ("reply_to", 1 << 9, _write_short),
    ("expiration", 1 << 8, _write_short),
    ("message_id", 1 << 7, _write_short),
    ("timestamp", 1 << 6, _write_time),
    ("type", 1 << 5, _write_short),
    ("user_id", 1 << 4, _write_short),
    ("app_id", 1 << 3, _write_short),
    ("cluster_id", 1 << 2, _write_short),
)
