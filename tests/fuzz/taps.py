"""Bytes of a fuzzer, read as choices. They never end: behind the last come zeros."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

T = t.TypeVar("T")


class Taps:
    """Reads choices from bytes, so that similar bytes are similar choices."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """So many bytes, or what is left of them."""
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def number(self, size: int = 1) -> int:
        """A whole number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.number() % len(choices)]

    def piece(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.number())

    def text(self) -> str:
        """A text, lone surrogates included."""
        return self.piece().decode("utf-8", "surrogateescape")
