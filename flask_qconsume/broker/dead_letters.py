"""Dead letters of a queue, and a filter that selects some of them. No I/O."""

from __future__ import annotations

import abc
import typing as t
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from ..message import Message
from . import headers as own_headers


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter, as ``flask qconsume dead-letters`` lists and shows it."""

    #: Unique in its queue; ``show`` and ``replay`` take it as an argument.
    ref: str
    queue: str
    message: Message
    #: The headers ``x-qconsume-*``: reason, error, traceback, attempts, times.
    headers: Mapping[str, t.Any]


@dataclass(frozen=True)
class DeadLetterFilter:
    """The conditions by which a command selects dead letters."""

    #: A part of the error or the reason; case is ignored.
    error: str | None = None
    #: Limits of the time at which the dead letter was made, in seconds since 1970.
    before: float | None = None
    after: float | None = None
    #: Values of :attr:`DeadLetter.ref`, or ids of messages.
    ids: frozenset[str] = frozenset()

    def __call__(self, letter: DeadLetter) -> bool:
        return (
            self._matches_id(letter)
            and self._matches_error(letter)
            and self._matches_age(letter)
        )

    def _matches_id(self, letter: DeadLetter) -> bool:
        return not self.ids or letter.ref in self.ids or letter.message.id in self.ids

    def _matches_error(self, letter: DeadLetter) -> bool:
        if self.error is None:
            return True
        reasons = (
            own_headers.read_text(letter.headers, name) or ""
            for name in _REASON_HEADERS
        )
        return any(self.error.casefold() in text.casefold() for text in reasons)

    def _matches_age(self, letter: DeadLetter) -> bool:
        if self.before is None and self.after is None:
            return True
        died_at = own_headers.read_time(letter.headers, own_headers.DIED_AT)
        if died_at is None:
            return False
        return (self.before is None or died_at <= self.before) and (
            self.after is None or died_at >= self.after
        )


_REASON_HEADERS = (own_headers.ERROR, own_headers.REASON)


class DeadLetters(abc.ABC):
    """The dead letters of one queue."""

    def narrow(self, wanted: DeadLetterFilter) -> DeadLetters:
        """Return these dead letters, possibly without some that a filter refuses.

        A broker that can search by a part of the filter reads fewer dead letters. The
        caller still has to apply the filter to each of them.
        """
        return self

    @abc.abstractmethod
    def count(self) -> int:
        """Count the dead letters."""

    @abc.abstractmethod
    def __iter__(self) -> Iterator[DeadLetter]:
        """Iterate over all dead letters, the oldest first, without changing them."""

    @abc.abstractmethod
    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        """Remove, and optionally replay, the dead letters for which ``wanted`` is true.

        A replay publishes a copy to the queue that failed (never to the exchange), with
        zero attempts and without the headers of the failure. The dead letter is removed
        once the copy is confirmed.

        :param progress: Called once for each dead letter that was examined.
        :returns: The number of dead letters removed.
        """
