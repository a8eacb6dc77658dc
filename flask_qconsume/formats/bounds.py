"""Limits for the contents of a body, checked before it is decoded.

An empty mapping takes 3 bytes of JSON, but 72 bytes of memory, so the length of a body
alone does not limit the memory of the decoded body. Each check takes time linear in the
length. A short body cannot hold many items, so for most bodies the check is one
comparison.
"""

from __future__ import annotations

from itertools import accumulate

from ..settings import MAX_ITEMS

#: Levels to which lists and mappings may nest in a published body. CPython's decoders
#: read about 900 levels, or fewer when they are called deep in the stack.
MAX_DEPTH = 500

#: Limit for the sum, over all mappings, of the squared number of keys with hashes that
#: a publisher can choose. One mapping with 3,162 such keys takes up to 0.1 s, and
#: 600,000 mappings with 4 such keys take no longer.
MAX_COLLISIONS = 10_000_000

#: Bytes; too few for 3,162 different keys with their values.
SHORT_BODY_BYTES = 10_000

#: In JSON without strings, each of these is followed by one item; the body is one more.
_ITEM_MARKS = (b",", b":", b"[", b"{")

_BRACKETS = b"[{]}"
_DEPTH_CHANGES = bytes.maketrans(_BRACKETS, b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))


class TooManyItems(ValueError):
    """A body has more values and keys than ``QCONSUME_MAX_ITEMS`` allows."""

    def __init__(self, max_items: int) -> None:
        super().__init__(
            f"it holds more than 'QCONSUME_MAX_ITEMS' = {max_items} values and keys"
        )


class TooManyKeys(ValueError):
    """A body has too many keys with hashes that a publisher can make collide."""

    def __init__(self) -> None:
        super().__init__(
            "it has too many keys that are not texts; one mapping may have some 3,000"
        )


def check_json(raw: bytes, max_items: int = MAX_ITEMS) -> None:
    """Refuse JSON that holds too many items.

    Items are values and keys; an empty list or mapping counts twice. Invalid JSON is
    not detected here.

    :raises TooManyItems: for more than ``max_items``.
    """
    if len(raw) <= max_items or _count_items(raw) <= max_items:
        return
    # Commas and other marks inside strings were counted, too: count without strings.
    bare = _remove_escapes(raw)
    too_many_strings = bare.count(b'"') > 2 * max_items
    if too_many_strings or _count_items(_remove_strings(bare)) > max_items:
        raise TooManyItems(max_items)


def check_depth(raw: bytes) -> None:
    """Refuse JSON that nests deeper than a consumer can decode.

    :raises ValueError: if it nests deeper than :data:`MAX_DEPTH`.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    brackets = _remove_strings(_remove_escapes(raw)).translate(
        _DEPTH_CHANGES, _NO_BRACKETS
    )
    if max(accumulate(memoryview(brackets).cast("b"))) > MAX_DEPTH:
        raise ValueError(f"it nests deeper than {MAX_DEPTH}")


def _count_items(raw: bytes) -> int:
    return 1 + sum(map(raw.count, _ITEM_MARKS))


def _remove_escapes(raw: bytes) -> bytes:
    r"""Remove escaped characters, so that each quote begins or ends a string."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"")


def _remove_strings(bare: bytes) -> bytes:
    return b"".join(bare.split(b'"')[::2])
