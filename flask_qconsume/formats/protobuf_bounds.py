"""Bounds of protobuf bodies, checked on their bytes before they are parsed.

A message within another one is two bytes, and takes memory for all its fields: four
megabytes became 1.6 GB. A map's keys that are numbers have hashes that a publisher can
choose: 400 KB of them took eleven seconds. protobuf bounds neither.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import contextlib
import typing as t
from collections import Counter
from functools import lru_cache

from .bounds import MOST_COLLISIONS
from .bounds import SHORT
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
    if len(raw) <= SHORT or not _within(kind):
        return
    with contextlib.suppress(IndexError):  # It ends early, which the parser tells.
        _Scan(raw, most).message(kind, 0, len(raw), 0)


class _Within(t.NamedTuple):
    """A field that holds messages."""

    kind: t.Any
    #: How many fields a message has that it holds.
    weight: int
    #: Whether it is a map with numbers as keys.
    has_numbers: bool


@lru_cache(1_024)
def _within(kind: t.Any) -> dict[int, _Within]:
    """The fields of a message that hold others, by number."""
    return {
        field.number: _Within(
            field.message_type, 1 + len(field.message_type.fields), _has_numbers(field)
        )
        for field in kind.fields
        if field.message_type is not None
    }


def _has_numbers(field: t.Any) -> bool:
    kind = field.message_type
    if not kind.GetOptions().map_entry:
        return False
    key = kind.fields_by_name["key"]
    return bool(key.cpp_type not in (key.CPPTYPE_STRING, key.CPPTYPE_BOOL))


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
                    keys[tag >> 3] += found.has_numbers
                    self._submessage(found, at, at + size, depth)
                at += size
            elif wire == _VARINT:
                _, at = self._varint(at)
            elif wire not in _GROUPS:  # What is in a group is counted as if outside.
                at += _SIZES.get(wire, end)
        self._collisions += sum(count * count for count in keys.values())
        if self._collisions > MOST_COLLISIONS:
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
