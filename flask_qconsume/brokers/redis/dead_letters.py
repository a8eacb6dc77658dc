"""Dead letters of one queue, in a sorted set ordered by the time of expiry."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

from ...broker import headers as own_headers
from ...broker.dead_letters import DeadLetter
from ...broker.dead_letters import DeadLetters
from ...broker.topology import QueuePlan
from ...message import Message
from . import scripts
from .shared import Shared

#: Limits a page, which has fewer dead letters if these are large.
_MAX_LETTERS_PER_PAGE = 50
_LETTERS_OF_FIRST_PAGE = 5
_MAX_BYTES_PER_PAGE = 4 * 1024 * 1024


class SortedSetDeadLetters(DeadLetters):
    """The dead letters of one queue; a subclass decodes the set's members."""

    def __init__(self, plan: QueuePlan, shared: Shared[t.Any], key: str) -> None:
        self._plan = plan
        self._shared = shared
        self._key = key

    def count(self) -> int:
        return int(self._shared.server.call(scripts.COUNT_DEAD_LETTERS([self._key])))

    def __iter__(self) -> Iterator[DeadLetter]:
        return (letter for letter, _ in self._iterate_letters())

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        taken_count = 0
        for letter, element in self._iterate_letters():
            if wanted(letter):
                taken_count += self._take(letter.message, element, replay)
            progress()
        return taken_count

    def _iterate_letters(self) -> Iterator[tuple[DeadLetter, bytes]]:
        for element in self._iterate_elements():
            message, ref = self._decode(element)
            headers = own_headers.select_own(message.headers)
            yield DeadLetter(ref, self._plan.name, message, headers), element

    def _iterate_elements(self) -> Iterator[bytes]:
        """Yield all members of the sorted set, in the order of their scores.

        Reads page by page. A page starts at a score, not at a rank: ranks change when
        another process removes elements.
        """
        score = b""
        #: The elements of the last score that have been yielded.
        seen_elements: set[bytes] = set()
        size = _LETTERS_OF_FIRST_PAGE
        while True:
            count = len(seen_elements) + size
            page = self._shared.server.call(
                scripts.READ_DEAD_LETTERS([self._key], score, count)
            )
            new_elements = [
                (element, element_score)
                for element, element_score in zip(page[::2], page[1::2], strict=True)
                if element_score != score or element not in seen_elements
            ]
            for element, element_score in new_elements:
                if element_score != score:
                    score, seen_elements = element_score, set()
                seen_elements.add(element)
                yield element
            if not new_elements:
                return
            largest = max(len(element) for element, _ in new_elements)
            fitting = _MAX_BYTES_PER_PAGE // (largest + 1)
            size = max(1, min(_MAX_LETTERS_PER_PAGE, fitting))

    def _decode(self, element: bytes) -> tuple[Message, str]:
        """Return a member's message, and the reference that commands show for it."""
        raise NotImplementedError

    def _take(self, message: Message, element: bytes, replay: bool) -> int:
        """Remove, and maybe replay, a dead letter; return how many were removed."""
        raise NotImplementedError
