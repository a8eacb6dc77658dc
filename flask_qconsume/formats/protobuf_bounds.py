"""Bounds of protobuf bodies, checked before they are parsed.

A message within another one is two bytes, and takes memory for all its fields: four
megabytes became 1.6 GB. A map's keys that are numbers have hashes that a publisher can
choose: 400 KB of them took eleven seconds. So have texts that need not be UTF-8, since
a constant of protobuf's hash in them cancels its secret. protobuf bounds none of this.

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

#: protobuf parses nothing that nests deeper.
_DEEPEST = 100

#: How many bytes a value has, by its wire type, where that is fixed.
_SIZES = {1: 8, 5: 4}
_VARINT, _SIZED, _GROUPS = 0, 2, (3, 4)


def check_protobuf(kind: t.Any, raw: bytes, most: int) -> None:
    """Refuse a body that would take too much memory or time to parse.

    :param kind: The descriptor of its message.
    :param most: How many values it may hold; a message counts for all its fields.
    :raises ValueError: if there are more, or too many numbers as keys of maps.
    """
    if len(raw) <= SHORT_BODY_BYTES or not _within(kind):
        return
    with contextlib.suppress(IndexError):  # It ends early, which the parser tells.
        _Scan(raw, most).message(kind, 0, len(raw), 0)


def check_plain(kind: t.Any, data: t.Any) -> None:
    """Refuse JSON that would take too much time to become a message.

    :param kind: The descriptor of that message.
    :raises TooManyKeys: if there are too many keys in maps whose hashes can be chosen.
    """
    _Keys().message(kind, data)


class _Within(t.NamedTuple):
    """A field that holds messages."""

    kind: t.Any
    #: How many fields a message has that it holds.
    weight: int
    #: Whether it is a map, with keys whose hashes can be chosen.
    can_collide: bool


@lru_cache(1_024)
def _within(kind: t.Any) -> dict[int, _Within]:
    """The fields of a message that hold others, by number."""
    return {
        field.number: _Within(
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
    """Whether the texts that are a map's keys need not be UTF-8, as in proto2."""
    from google.protobuf import message_factory

    try:
        message_factory.GetMessageClass(entry).FromString(b"\x0a\x01\xff")
    except Exception:
        return False
    return True


class _Scan:
    """Counts what messages hold, field by field. Nothing is decoded."""

    def __init__(self, raw: bytes, most: int) -> None:
        self._raw = raw
        self._most = most
        self._items = 0
        self._collisions = 0

    def message(self, kind: t.Any, at: int, end: int, depth: int) -> None:
        within = _within(kind)
        keys: Counter[int] = Counter()
        while at < end:
            tag, at = self._varint(at)
            wire = tag & 7
            self._count(1)
            if wire == _SIZED:
                size, at = self._varint(at)
                if (found := within.get(tag >> 3)) is not None:
                    keys[tag >> 3] += found.can_collide
                    self._submessage(found, at, at + size, depth)
                at += size
            elif wire == _VARINT:
                _, at = self._varint(at)
            elif wire not in _GROUPS:  # What is in a group is counted as if outside.
                at += _SIZES.get(wire, end)
        self._collisions += sum(count * count for count in keys.values())
        if self._collisions > MAX_COLLISIONS:
            raise TooManyKeys()

    def _submessage(self, found: _Within, at: int, end: int, depth: int) -> None:
        self._count(found.weight)
        if depth < _DEEPEST and _within(found.kind):
            self.message(found.kind, at, min(end, len(self._raw)), depth + 1)

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > self._most:
            raise TooManyItems(self._most)

    def _varint(self, at: int) -> tuple[int, int]:
        """A number of seven bits a byte, and where it ends."""
        value = shift = 0
        while (byte := self._raw[at]) & 0x80:
            value |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if shift > 63:
                raise IndexError(at)
        return value | byte << shift, at + 1


class _Keys:
    """Counts the keys of what is to become a message."""

    def __init__(self) -> None:
        self._collisions = 0

    def message(self, kind: t.Any, data: t.Any) -> None:
        if not isinstance(data, dict):
            return
        if kind.full_name == _ANY:
            self._any(data)
            return
        within = _named(kind)
        for name in within.keys() & data.keys():
            self._field(within[name], data[name])

    def _any(self, data: dict[str, t.Any]) -> None:
        """What says of which type it is."""
        name = str(data.get("@type")).rpartition("/")[2]
        with contextlib.suppress(KeyError):  # The parser tells that it is not known.
            kind = _kind_named(name)
            self.message(kind, data.get("value") if name == _ANY else data)

    def _field(self, field: t.Any, value: t.Any) -> None:
        kind = field.message_type
        if not _is_map(kind):
            for each in value if isinstance(value, list) else [value]:
                self.message(kind, each)
        elif isinstance(value, dict):
            self._count(len(value) if _can_collide(field) else 0)
            held = kind.fields_by_name["value"].message_type
            for each in value.values() if held is not None else ():
                self.message(held, each)

    def _count(self, keys: int) -> None:
        self._collisions += keys * keys
        if self._collisions > MAX_COLLISIONS:
            raise TooManyKeys()


_ANY = "google.protobuf.Any"


@lru_cache(1_024)
def _named(kind: t.Any) -> dict[str, t.Any]:
    """The fields of a message that hold others, by the names that JSON may use."""
    fields = [field for field in kind.fields if field.message_type is not None]
    return {n: field for field in fields for n in (field.name, field.json_name)}


def _kind_named(name: str) -> t.Any:
    """The descriptor that the parser would find."""
    from google.protobuf import descriptor_pool

    return descriptor_pool.Default().FindMessageTypeByName(name)
