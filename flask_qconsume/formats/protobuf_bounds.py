"""Limits for protobuf bodies, checked before they are parsed.

A nested message takes two bytes, but memory for all its fields: 4 MB became 1.6 GB. A
publisher can choose the hashes of a map's keys if they are numbers: 400 KB of them took
11 seconds. The same is true for texts that need not be UTF-8, where a constant of
protobuf's hash function cancels its secret. protobuf itself has no such limits.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import contextlib
import typing as t
from collections import Counter
from functools import lru_cache

from .bounds import MAX_COLLISIONS
from .bounds import SHORT_BODY_BYTES
from .bounds import TooManyItems
from .bounds import TooManyKeys

#: Levels to which messages may nest for protobuf.
_MAX_DEPTH = 100

#: Bytes of a value, by the wire types with a fixed size.
_SIZES = {1: 8, 5: 4}
_VARINT, _SIZED, _GROUPS = 0, 2, (3, 4)


def check_protobuf(kind: t.Any, raw: bytes, max_items: int) -> None:
    """Refuse a body that would take too much memory or time to parse.

    :param kind: The descriptor of the body's message.
    :param max_items: Limit for values. Each nested message counts with all fields.
    :raises ValueError: for more values, or too many map keys with known hashes.
    """
    if len(raw) <= SHORT_BODY_BYTES or not _find_nested(kind):
        return
    with contextlib.suppress(IndexError):  # It ends early; the parser raises for that.
        _Scanner(raw, max_items).scan_message(kind, 0, len(raw), 0)


def check_plain(kind: t.Any, data: t.Any) -> None:
    """Refuse JSON values that take too long to convert to a protobuf message.

    :param kind: The descriptor of that message.
    :raises TooManyKeys: for too many map keys with hashes that a publisher can choose.
    """
    _KeyCounter().count_message(kind, data)


class _NestedField(t.NamedTuple):
    """A field of a protobuf type that holds messages of another type."""

    kind: t.Any
    #: Number of values that count for one message: all its fields.
    weight: int
    #: True if the field is a map, and a publisher can choose the hashes of its keys.
    can_collide: bool


@lru_cache(1_024)
def _find_nested(kind: t.Any) -> dict[int, _NestedField]:
    """Return the fields whose values are protobuf messages, by field number."""
    return {
        field.number: _NestedField(
            field.message_type, 1 + len(field.message_type.fields), _can_collide(field)
        )
        for field in kind.fields
        if field.message_type is not None
    }


def _can_collide(field: t.Any) -> bool:
    if not _is_map(field.message_type):
        return False
    key = field.message_type.fields_by_name["key"]
    if key.cpp_type == key.CPPTYPE_STRING:
        return _takes_any_bytes(field.message_type)
    return bool(key.cpp_type != key.CPPTYPE_BOOL)


def _is_map(kind: t.Any) -> bool:
    return bool(kind.GetOptions().map_entry)


def _takes_any_bytes(entry: t.Any) -> bool:
    """Return whether a map's text keys may be bytes that are not UTF-8."""
    from google.protobuf import message_factory

    try:
        message_factory.GetMessageClass(entry).FromString(b"\x0a\x01\xff")
    except Exception:
        return False
    return True


class _Scanner:
    """Counts the values of a protobuf body, without decoding it."""

    def __init__(self, raw: bytes, max_items: int) -> None:
        self._raw = raw
        self._max_items = max_items
        self._items = 0
        self._collisions = 0

    def scan_message(self, kind: t.Any, at: int, end: int, depth: int) -> None:
        nested = _find_nested(kind)
        keys: Counter[int] = Counter()
        while at < end:
            tag, at = self._read_varint(at)
            wire = tag & 7
            self._count(1)
            if wire == _SIZED:
                size, at = self._read_varint(at)
                if (nested_field := nested.get(tag >> 3)) is not None:
                    keys[tag >> 3] += nested_field.can_collide
                    self._scan_nested(nested_field, at, at + size, depth)
                at += size
            elif wire == _VARINT:
                _, at = self._read_varint(at)
            elif wire not in _GROUPS:  # A group's fields are counted by this loop, too.
                at += _SIZES.get(wire, end)
        self._collisions += sum(count * count for count in keys.values())
        if self._collisions > MAX_COLLISIONS:
            raise TooManyKeys()

    def _scan_nested(
        self, nested_field: _NestedField, at: int, end: int, depth: int
    ) -> None:
        self._count(nested_field.weight)
        if depth < _MAX_DEPTH and _find_nested(nested_field.kind):
            self.scan_message(
                nested_field.kind, at, min(end, len(self._raw)), depth + 1
            )

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > self._max_items:
            raise TooManyItems(self._max_items)

    def _read_varint(self, at: int) -> tuple[int, int]:
        """Read a varint at an index; return its value and the index after it."""
        value = shift = 0
        while (byte := self._raw[at]) & 0x80:
            value |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if shift > 63:
                raise IndexError(at)
        return value | byte << shift, at + 1


class _KeyCounter:
    """Counts the map keys of JSON values that become a protobuf message."""

    def __init__(self) -> None:
        self._collisions = 0

    def count_message(self, kind: t.Any, data: t.Any) -> None:
        if not isinstance(data, dict):
            return
        if kind.full_name == _ANY:
            self._count_any(data)
            return
        nested = _find_nested_by_name(kind)
        for name in nested.keys() & data.keys():
            self._count_field(nested[name], data[name])

    def _count_any(self, data: dict[str, t.Any]) -> None:
        """Count the keys of a ``google.protobuf.Any``, which names its type."""
        name = str(data.get("@type")).rpartition("/")[2]
        with contextlib.suppress(KeyError):  # The parser raises for an unknown type.
            kind = _find_kind(name)
            self.count_message(kind, data.get("value") if name == _ANY else data)

    def _count_field(self, field: t.Any, value: t.Any) -> None:
        kind = field.message_type
        if not _is_map(kind):
            for nested_value in value if isinstance(value, list) else [value]:
                self.count_message(kind, nested_value)
        elif isinstance(value, dict):
            self._count_keys(len(value) if _can_collide(field) else 0)
            value_type = kind.fields_by_name["value"].message_type
            for nested_value in value.values() if value_type is not None else ():
                self.count_message(value_type, nested_value)

    def _count_keys(self, keys: int) -> None:
        self._collisions += keys * keys
        if self._collisions > MAX_COLLISIONS:
            raise TooManyKeys()


_ANY = "google.protobuf.Any"


@lru_cache(1_024)
def _find_nested_by_name(kind: t.Any) -> dict[str, t.Any]:
    """Return the fields that hold protobuf messages, by their JSON names."""
    fields = [field for field in kind.fields if field.message_type is not None]
    return {n: field for field in fields for n in (field.name, field.json_name)}


def _find_kind(name: str) -> t.Any:
    """Find the descriptor of a protobuf type by the type's name."""
    from google.protobuf import descriptor_pool

    return descriptor_pool.Default().FindMessageTypeByName(name)
