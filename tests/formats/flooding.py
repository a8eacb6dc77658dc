"""Keys that collide in Python's dictionaries."""

from __future__ import annotations

import functools
import struct


@functools.cache
def find_colliding(count: int) -> tuple[int, ...]:
    """Find numbers that a dictionary inserts slowly: each meets many earlier ones.

    The search is fast for counts that fill a dictionary, such as 5,400 and 1,300.

    The first half occupies a chain of slots, in the order in which a dictionary probes
    for a free slot. Each number of the second half starts at the chain's beginning.
    """
    size = 1 << (count * 3 // 2).bit_length()
    row, slot = {}, 0
    for number in range(count // 2):
        row[slot] = number
        slot = (5 * slot + 1) % size
    late, key = [], size
    while len(late) < count - len(row):
        if row.get(_find_slot(key, row, size), count) < len(row) // 3:
            late.append(key)
        key += 1
    return (*row, *late)


def _find_slot(key: int, row: dict[int, int], size: int) -> int:
    """Slot of a key in a dictionary, once its higher bits are used up."""
    slot, rest = key % size, key
    while rest and slot in row:
        rest >>= 5
        slot = (5 * slot + rest + 1) % size
    return slot


def packed(keys: tuple[int, ...]) -> bytes:
    """Encode a mapping from these keys to ``None`` as MessagePack."""
    pairs = b"".join(b"\xce" + struct.pack(">I", key) + b"\xc0" for key in keys)
    return b"\xdf" + struct.pack(">I", len(keys)) + pairs
