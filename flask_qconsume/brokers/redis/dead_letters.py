"""Dead letters of one queue: members of a sorted set, scored by expiry."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

from ...broker import headers as own_headers
from ...broker.base import DeadLetter
from ...broker.base import DeadLetters
from ...broker.topology import QueuePlan
from ...message import Message
from . import scripts
from .shared import Shared

#: A page is of so many, fewer where they are large, and of so many bytes.
_PAGE = 50


_FIRST_PAGE = 5


_BYTES = 4 * 1024 * 1024


class SortedSetDeadLetters(DeadLetters):
    """Elements of a sorted set that are still to be kept, whatever they look like."""

    def __init__(self, plan: QueuePlan, shared: Shared[t.Any], key: str) -> None:
        self._plan = plan
        self._shared = shared
        self._key = key

    def count(self) -> int:
        return int(self._shared.server.call(scripts.COUNT([self._key])))

    def __iter__(self) -> Iterator[DeadLetter]:
        return (letter for letter, _ in self._letters())

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        taken = 0
        for letter, element in self._letters():
            if wanted(letter):
                taken += self._take(letter.message, element, replay)
            progress()
        return taken

    def _letters(self) -> Iterator[tuple[DeadLetter, bytes]]:
        for element in self._elements():
            message, ref = self._opened(element)
            headers = own_headers.select_own(message.headers)
            yield DeadLetter(ref, self._plan.name, message, headers), element

    def _elements(self) -> Iterator[bytes]:
        """All elements by their scores.

        By ranks some would be missed: those behind move up when others are taken out.
        """
        score = b""
        #: Of the last score, what was given out already.
        seen: set[bytes] = set()
        size = _FIRST_PAGE
        while True:
            count = len(seen) + size
            page = self._shared.server.call(scripts.PAGE([self._key], score, count))
            fresh = [
                (element, found)
                for element, found in zip(page[::2], page[1::2], strict=True)
                if found != score or element not in seen
            ]
            for element, found in fresh:
                if found != score:
                    score, seen = found, set()
                seen.add(element)
                yield element
            if not fresh:
                return
            largest = max(len(element) for element, _ in fresh)
            size = max(1, min(_PAGE, _BYTES // (largest + 1)))

    def _opened(self, element: bytes) -> tuple[Message, str]:
        """The message in an element, and what tells it from the others."""
        raise NotImplementedError

    def _take(self, message: Message, element: bytes, replay: bool) -> int:
        """Take one out if it is still there, and replay it; how many that were."""
        raise NotImplementedError
