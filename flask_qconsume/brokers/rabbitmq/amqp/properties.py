"""A message's basic properties as AMQP writes them. No I/O.

py-amqp writes them, too, in three times the time. Here is written what nearly all
messages have; whatever else there is, and whatever cannot be written, is left to it.
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


def written(properties: Mapping[str, t.Any]) -> bytes:
    """Flags and values.

    :param properties: By AMQP's names, but for ``headers``.
    :raises Exception: of many kinds, if one of them cannot be written.
    """
    try:
        return _written(properties)
    except (_Rare, ValueError, TypeError, AttributeError, struct.error):
        headers = properties.get("headers") or None
        table = {**properties, "application_headers": headers}
        return t.cast(bytes, amqp.Message(b"", **table)._serialize_properties())


class _Rare(Exception):
    """Something that is left to py-amqp."""


def _written(properties: Mapping[str, t.Any]) -> bytes:
    flags, writers = _layout(tuple(properties))
    return flags + b"".join([write(properties[name]) for name, write in writers])


@functools.lru_cache(256)
def _layout(names: tuple[str, ...]) -> tuple[bytes, tuple[tuple[str, _Writer], ...]]:
    """The flags of these properties, and what writes each, in order."""
    there = [each for each in _PROPERTIES if each[0] in names]
    flags = sum(flag for _, flag, _ in there)
    return _FLAGS.pack(flags), tuple((name, write) for name, _, write in there)


def _short(value: str) -> bytes:
    text = value.encode()
    return bytes((len(text),)) + text


#: The same, for what is nearly always one of a few texts.
_usual = functools.lru_cache(1024)(_short)


def _octet(value: int) -> bytes:
    return bytes((value,))


def _time(value: t.Any) -> bytes:
    return _LONGLONG.pack(value)


def _table(headers: Mapping[str, t.Any]) -> bytes:
    if not headers:
        raise _Rare
    table = b"".join([_usual(name) + _value(headers[name]) for name in headers])
    return _LONG.pack(len(table)) + table


def _value(value: t.Any) -> bytes:
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
    raise _Rare


#: Each with its flag, in the order in which they are written (AMQP 0-9-1, 4.2.6.1).
_PROPERTIES: tuple[tuple[str, int, _Writer], ...] = (
    ("content_type", 1 << 15, _usual),
    ("content_encoding", 1 << 14, _usual),
    ("headers", 1 << 13, _table),
    ("delivery_mode", 1 << 12, _octet),
    ("priority", 1 << 11, _octet),
    ("correlation_id", 1 << 10, _short),
    ("reply_to", 1 << 9, _short),
    ("expiration", 1 << 8, _short),
    ("message_id", 1 << 7, _short),
    ("timestamp", 1 << 6, _time),
    ("type", 1 << 5, _short),
    ("user_id", 1 << 4, _short),
    ("app_id", 1 << 3, _short),
    ("cluster_id", 1 << 2, _short),
)
