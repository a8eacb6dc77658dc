"""MessagePack, smaller and faster than JSON.

Its mappings may have numbers as keys. Python hashes texts with a secret, and numbers
without one: a publisher can choose them so that each collides with all before it. Half
a megabyte of such keys took 22 seconds.
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

#: The types of keys whose hashes are secret.
_SECRET = (str, bytes)

#: So many keys take no longer than others, and their types are not looked at.
_FEW = 8

#: How deep lists and mappings may nest for msgpack.
_DEEPEST = 1_024


class MsgPack(Format):
    """What MessagePack means; times are ``datetime`` in UTC."""

    content_types = (MSGPACK, "application/x-msgpack", "application/vnd.msgpack")

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self._max_items = max_items
        self._short = min(SHORT_BODY_BYTES, max_items)

    def decode(self, message: Message) -> t.Any:
        if len(message.raw) > self._short:
            return _unpacked(message.raw, self._max_items)
        # As nearly all are. A partial function costs half as much again.
        return msgpack.unpackb(
            message.raw, raw=False, timestamp=3, strict_map_key=False
        )

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        raw = t.cast(bytes, msgpack.packb(body, default=to_plain))
        if len(raw) > SHORT_BODY_BYTES:
            _unpacked(raw, len(raw))  # A consumer must not refuse its keys.
        return raw


def _unpacked(raw: bytes, max_items: int) -> t.Any:
    """What a body means that is not short.

    :raises TooManyItems: if it holds more than ``max_items``.
    :raises Exception: of any kind, if it is wrong.
    """
    _check_whole(raw)
    if len(raw) <= max_items:
        with contextlib.suppress(ValueError):  # Other keys than texts, most likely.
            return _unpackb(raw, strict_map_key=True)
    return _Counting(max_items).unpacked(raw)


_unpackb = partial(msgpack.unpackb, raw=False, timestamp=3)


def _check_whole(raw: bytes) -> None:
    """Refuse lists and mappings that announce more than the bytes can hold.

    :raises msgpack.UnpackException: for a body that ends early.
    :raises ValueError: for one that nests too deeply.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw))
    unpacker.feed(raw)
    try:
        unpacker.skip()
    except msgpack.StackError as error:
        raise ValueError(f"it nests deeper than {_DEEPEST}") from error


class _Counting:
    """Unpacks, and counts items and keys while it does."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._items = 1
        self._collisions = 0

    def unpacked(self, raw: bytes) -> t.Any:
        try:
            return _unpackb(
                raw,
                strict_map_key=False,
                list_hook=self._list,
                object_pairs_hook=self._mapping,
                max_array_len=self._max_items,
                max_map_len=self._max_items,
            )
        except ValueError as error:
            # The one about these two lengths has no class of its own.
            if type(error) is ValueError and len(raw) > self._max_items:
                limit = f"'QCONSUME_MAX_ITEMS' is {self._max_items}"
                raise ValueError(f"{error}; {limit}") from error
            raise

    def _list(self, found: list[t.Any]) -> list[t.Any]:
        self._count(len(found))
        return found

    def _mapping(self, pairs: list[tuple[t.Any, t.Any]]) -> dict[t.Any, t.Any]:
        self._count(2 * len(pairs))
        if len(pairs) > _FEW:
            self._check_keys(pairs)
        return dict(pairs)

    def _check_keys(self, pairs: list[tuple[t.Any, t.Any]]) -> None:
        others = sum(not isinstance(key, _SECRET) for key, _ in pairs)
        self._collisions += others * others
        if self._collisions > MAX_COLLISIONS:
            raise TooManyKeys()

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > self._max_items:
            raise TooManyItems(self._max_items)
