"""MessagePack, smaller and faster than JSON.

Its mappings may have numbers as keys. Python hashes texts with a secret, but numbers
without: a publisher can choose numbers that all collide. Half a megabyte of such keys
took 22 seconds.
"""

from __future__ import annotations

import contextlib
import typing as t
from functools import partial

import msgpack

from ..message import Message
from ..settings import MAX_ITEMS
from ..settings import MSGPACK
from .base import Format
from .bounds import MAX_COLLISIONS
from .bounds import SHORT_BODY_BYTES
from .bounds import TooManyItems
from .bounds import TooManyKeys
from .json import to_plain

#: Types that Python hashes with a secret, so that keys cannot be made to collide.
_SECRETLY_HASHED = (str, bytes)

#: Mappings with up to this number of keys are fast, even if all keys collide.
_MAX_UNCHECKED_KEYS = 8

#: Levels to which lists and mappings may nest for msgpack.
_MAX_DEPTH = 1_024


class MsgPack(Format):
    """MessagePack; its timestamps are decoded as ``datetime`` in UTC."""

    content_types = (MSGPACK, "application/x-msgpack", "application/vnd.msgpack")

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self._max_items = max_items
        self._short = min(SHORT_BODY_BYTES, max_items)

    def decode(self, message: Message) -> t.Any:
        if len(message.raw) > self._short:
            return _unpack_long(message.raw, self._max_items)
        # The fast path, for nearly all bodies; a partial function takes 1.5 times as
        # long.
        return msgpack.unpackb(
            message.raw, raw=False, timestamp=3, strict_map_key=False
        )

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        raw = t.cast(bytes, msgpack.packb(body, default=to_plain))
        if len(raw) > SHORT_BODY_BYTES:
            _unpack_long(raw, len(raw))  # Raises if a consumer would refuse the keys.
        return raw


def _unpack_long(raw: bytes, max_items: int) -> t.Any:
    """Decode a long body, but refuse too many items, and too many keys that collide.

    :raises TooManyItems: if the body holds more than ``max_items``.
    :raises Exception: of any kind, if the body is not MessagePack.
    """
    _check_whole(raw)
    if len(raw) <= max_items:
        with contextlib.suppress(ValueError):  # Most likely a key that is not a text.
            return _unpackb(raw, strict_map_key=True)
    return _CountingDecoder(max_items).decode(raw)


_unpackb = partial(msgpack.unpackb, raw=False, timestamp=3)


def _check_whole(raw: bytes) -> None:
    """Refuse a body that announces more items than its bytes can contain.

    :raises msgpack.UnpackException: if the body ends early.
    :raises ValueError: if the body nests too deeply.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw))
    unpacker.feed(raw)
    try:
        unpacker.skip()
    except msgpack.StackError as error:
        raise ValueError(f"it nests deeper than {_MAX_DEPTH}") from error


class _CountingDecoder:
    """Decodes a body, and counts its items and keys at the same time."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._items = 1
        self._collisions = 0

    def decode(self, raw: bytes) -> t.Any:
        try:
            return _unpackb(
                raw,
                strict_map_key=False,
                list_hook=self._count_list,
                object_pairs_hook=self._create_dict,
                max_array_len=self._max_items,
                max_map_len=self._max_items,
            )
        except ValueError as error:
            # The error about the two lengths is a plain ValueError.
            if type(error) is ValueError and len(raw) > self._max_items:
                limit = f"'QCONSUME_MAX_ITEMS' is {self._max_items}"
                raise ValueError(f"{error}; {limit}") from error
            raise

    def _count_list(self, items: list[t.Any]) -> list[t.Any]:
        self._count(len(items))
        return items

    def _create_dict(self, pairs: list[tuple[t.Any, t.Any]]) -> dict[t.Any, t.Any]:
        self._count(2 * len(pairs))
        if len(pairs) > _MAX_UNCHECKED_KEYS:
            self._check_keys(pairs)
        return dict(pairs)

    def _check_keys(self, pairs: list[tuple[t.Any, t.Any]]) -> None:
        open_keys = sum(not isinstance(key, _SECRETLY_HASHED) for key, _ in pairs)
        self._collisions += open_keys * open_keys
        if self._collisions > MAX_COLLISIONS:
            raise TooManyKeys()

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > self._max_items:
            raise TooManyItems(self._max_items)
