"""The counts of one process: numbers in a memory-mapped file, or in plain memory.

The process adds to the numbers by ``values[slot] += 1``, without a call. The kernel
keeps them if the process is killed, and other processes read them from the file.

A file consists of chunks of 64 KiB. A chunk begins with a head: magic bytes with the
version, the process id, and how many bytes are used. Entries follow, each of them a
series: the length of its key, the count of its numbers, the key as JSON, and the
numbers as doubles. The count of used bytes grows last, so a process that is killed
while it adds an entry leaves a valid chunk. Everything is aligned to 8 bytes, so no
reader sees half of a number.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from .series import Series
from .series import SeriesKey

#: The last digit is the version of the format.
_MAGIC = b"QCMETRI1"

#: Magic, process id, used bytes of the chunk.
_HEAD = struct.Struct("=8sQQ")
_USED_AT = 16

#: Bytes of the key, count of the numbers.
_ENTRY = struct.Struct("=II")

#: A multiple of the page size of every processor, as a mapping's offset has to be.
CHUNK_BYTES = 65_536


class ForeignFile(ValueError):
    """A file that is no value file of this version, or is damaged."""


class Slots(t.NamedTuple):
    """The place of one series' numbers: ``values[first]`` and the following."""

    values: memoryview[float]
    first: int


class ValueFile:
    """The numbers of one process.

    :param descriptor: An open, empty file, in which the numbers are kept, and which is
        closed if that fails; ``None`` to keep them in memory.
    :raises OSError: if the disk is full.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._chunks: list[memoryview[int]] = []
        #: The reason why later chunks are in memory only, if they are.
        self.problem: OSError | None = None
        self._add_chunk()

    def add(self, keys: Sequence[SeriesKey]) -> list[Slots]:
        """Add series, all in one chunk, that begin with 0; return their places.

        Series that do not fit into the file any more are counted in memory only.
        """
        entries = [_write_entry(key) for key in keys]
        needed = sum(map(len, entries))
        if self._used + needed > CHUNK_BYTES:
            self._add_chunk()
        chunk = self._chunks[-1]
        values = chunk.cast("d")
        found = []
        for key, entry in zip(keys, entries, strict=True):
            chunk[self._used : self._used + len(entry)] = entry
            self._used += len(entry)
            found.append(Slots(values, self._used // 8 - _count_values(key)))
        self._publish_used(chunk)
        return found

    def read(self) -> list[Series]:
        """Return the series with their present numbers."""
        return [each for chunk in self._chunks for each in _read_chunk(bytes(chunk))]

    def copy_to(self, descriptor: int) -> None:
        """Write all series into another file, in which readers see valid chunks.

        :raises OSError: if the disk is full.
        """
        for place, chunk in enumerate(self._chunks):
            at, data = place * CHUNK_BYTES, bytes(chunk)
            os.posix_fallocate(descriptor, at, CHUNK_BYTES)
            os.pwrite(descriptor, data[_HEAD.size :], at + _HEAD.size)
            os.pwrite(descriptor, data[: _HEAD.size], at)

    def close(self) -> None:
        """Close the file's descriptor; its numbers can still be increased."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _add_chunk(self) -> None:
        chunk = self._make_chunk(len(self._chunks) * CHUNK_BYTES)
        self._used = _HEAD.size
        chunk[: _HEAD.size] = _HEAD.pack(_MAGIC, os.getpid(), self._used)
        self._chunks.append(chunk)

    def _make_chunk(self, offset: int) -> memoryview[int]:
        if self._descriptor is None or self.problem is not None:
            return memoryview(bytearray(CHUNK_BYTES))
        try:
            # A sparse file on a full disk would end the process by SIGBUS.
            os.posix_fallocate(self._descriptor, offset, CHUNK_BYTES)
            return memoryview(mmap.mmap(self._descriptor, CHUNK_BYTES, offset=offset))
        except OSError as error:
            if not self._chunks:
                self.close()
                raise
            self.problem = error
            return memoryview(bytearray(CHUNK_BYTES))

    def _publish_used(self, chunk: memoryview[int]) -> None:
        chunk.cast("Q")[_USED_AT // 8] = self._used


def read_values(data: bytes) -> tuple[int, list[Series]]:
    """Return the process id and the series in the bytes of a value file.

    :raises ForeignFile: if these are no bytes of a value file of this version.
    """
    count = len(data) // CHUNK_BYTES
    if not count:
        raise ForeignFile("it is too short")
    chunks = [data[i * CHUNK_BYTES :][:CHUNK_BYTES] for i in range(count)]
    try:
        series = [each for chunk in chunks for each in _read_chunk(chunk)]
    except ForeignFile:
        raise
    except (struct.error, ValueError, TypeError, LookupError) as error:
        raise ForeignFile("it is damaged") from error
    return _HEAD.unpack_from(data)[1], series


def _count_values(key: SeriesKey) -> int:
    bounds = key[2]
    return len(bounds) + 2 if bounds else 1


def _write_entry(key: SeriesKey) -> bytes:
    text = json.dumps(key, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    count = _count_values(key)
    return _ENTRY.pack(len(text), count) + text + bytes(8 * count)


def _read_chunk(chunk: bytes) -> Iterator[Series]:
    magic, _, used = _HEAD.unpack_from(chunk)
    if magic == bytes(8):
        return  # Reserved, and not begun yet.
    if magic != _MAGIC:
        raise ForeignFile("it is no value file of this version")
    at = _HEAD.size
    while at < used:
        length, count = _ENTRY.unpack_from(chunk, at)
        begin = at + _ENTRY.size + length
        name, labels, bounds = json.loads(chunk[at + _ENTRY.size : begin])
        values = struct.unpack_from(f"={count}d", chunk, begin)
        yield Series(str(name), tuple(labels), tuple(bounds), values)
        at = begin + 8 * count
