"""Keys of mappings that collide in Python's dictionaries."""

from __future__ import annotations

import struct


def colliding(count: int) -> list[int]:
    """Numbers of which each later one passes many earlier ones to find its place.

    They are found soon if they fill a dictionary: 5,400 do, and 1,300.

    The first half lies in a row, in the order in which a dictionary looks for a free
    place. The second half enters that row at its beginning.
    """
    size = 1 << (count * 3 // 2).bit_length()
    row, slot = {}, 0
    for number in range(count // 2):
        row[slot] = number
        slot = (5 * slot + 1) % size
    late, key = [], size
    while len(late) < count - len(row):
        if row.get(_enters(key, row, size), count) < len(row) // 3:
            late.append(key)
        key += 1
    return [*row, *late]


def _enters(key: int, row: dict[int, int], size: int) -> int:
    """Where a key is looked for, once its higher bits do not matter any more."""
    slot, rest = key % size, key
    while rest and slot in row:
        rest >>= 5
        slot = (5 * slot + rest + 1) % size
    return slot


def packed(keys: list[int]) -> bytes:
    """A mapping in MessagePack, of these keys and nothing."""
    pairs = b"".join(b"\xce" + struct.pack(">I", key) + b"\xc0" for key in keys)
    return b"\xdf" + struct.pack(">I", len(keys)) + pairs
