"""Bounds of what a body may hold, checked before it is decoded.

An empty mapping is three bytes of JSON and 72 of memory: the bytes of a body alone do
not bound what it becomes. Each check takes time that is linear in the bytes. What a
short body holds is bounded by its length, so most bodies cost a comparison.
"""

from __future__ import annotations

from itertools import accumulate

from ..settings import MAX_ITEMS

#: How deep lists and mappings may nest in what is published. CPython's decoders read
#: about 900 levels, fewer where the stack is high already.
MAX_DEPTH = 500

#: The sum over all mappings of the square of how many keys they have whose hashes can
#: be chosen: 3,162 in one of them take 0.1 s at the most, and 4 of them in 600,000 take
#: no longer.
MAX_COLLISIONS = 10_000_000

#: Bytes that hold no 3,162 different keys with their values.
SHORT_BODY_BYTES = 10_000

#: A JSON text without strings has an item behind each of these, and one more.
_BEFORE_ITEMS = (b",", b":", b"[", b"{")

_BRACKETS = b"[{]}"
_STEPS = bytes.maketrans(_BRACKETS, b"\x01\x01\xff\xff")
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))


class TooManyItems(ValueError):
    """A body holds more than ``QCONSUME_MAX_ITEMS``."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"it holds more than 'QCONSUME_MAX_ITEMS' = {most} values and keys"
        )


class TooManyKeys(ValueError):
    """A body has so many keys with hashes that can be chosen that it may take long."""

    def __init__(self) -> None:
        super().__init__(
            "it has too many keys that are no texts; some 3,000 in one mapping are"
            " taken"
        )


def check_json(raw: bytes, most: int = MAX_ITEMS) -> None:
    """Refuse JSON that holds too many items.

    Items are values and keys; an empty list or mapping counts twice. Whether it is
    JSON at all is not checked here.

    :raises TooManyItems: if there are more than ``most``.
    """
    if len(raw) <= most or _items(raw) <= most:
        return
    # The strings held commas and the like, or there are too many strings.
    bare = _without_escapes(raw)
    if bare.count(b'"') > 2 * most or _items(_outside_strings(bare)) > most:
        raise TooManyItems(most)


def check_depth(raw: bytes) -> None:
    """Refuse JSON of ours that a consumer might not be able to decode.

    :raises ValueError: if it nests deeper than :data:`MAX_DEPTH`.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    brackets = _outside_strings(_without_escapes(raw)).translate(_STEPS, _OTHERS)
    if max(accumulate(memoryview(brackets).cast("b"))) > MAX_DEPTH:
        raise ValueError(f"it nests deeper than {MAX_DEPTH}")


def _items(raw: bytes) -> int:
    return 1 + sum(map(raw.count, _BEFORE_ITEMS))


def _without_escapes(raw: bytes) -> bytes:
    r"""Without ``\\`` and ``\"``, so that the quotes left begin and end strings."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"")


def _outside_strings(bare: bytes) -> bytes:
    return b"".join(bare.split(b'"')[::2])
