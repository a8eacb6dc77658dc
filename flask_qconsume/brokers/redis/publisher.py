"""Publishing: routed by kombu's bindings, confirmed by Redis' answer, tried again.

Safe in any thread or greenlet: those who publish at the same time send together.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from ...broker.compose import make_unroutable_error
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...errors import PublishTimeout
from ...message import Outgoing
from .bindings import Bindings
from .errors import AnswerLost
from .errors import copy_error
from .group_commit import CallerBatch
from .scripts import Call
from .shared import Shared

#: One round trip carries at most so many messages and bytes.
_MESSAGES = 200
_BYTES = 4 * 1024 * 1024
#: Seconds between two attempts: from, to.
_PAUSES = (0.05, 1.0)

Result = Exception | None


@dataclass(frozen=True)
class RoutedPart:
    """A message on its way to some queues, in one step."""

    #: Whose it is, and which one of that caller's.
    attempt: _PublishBatch
    number: int
    queues: tuple[str, ...]
    call: Call
    #: Whether the queues' readers might notice it late.
    late: bool

    @property
    def unseen(self) -> tuple[str, ...]:
        return self.queues if self.late else ()


class Publisher:
    """Sends messages; each is in all of its queues or in none of them.

    How it is put there is for a subclass to say.
    """

    def __init__(
        self,
        shared: Shared[t.Any],
        bindings: Bindings,
        prepare: t.Callable[[float | None], None],
        declare_again: t.Callable[[float], None],
    ) -> None:
        self._shared = shared
        self._bindings = bindings
        #: Both take the seconds that are left.
        self._prepare = prepare
        self._declare_again = declare_again

    def publish(self, messages: Sequence[Outgoing], timeout: float) -> list[Result]:
        """Publish, trying again until the time is over."""
        attempt = _PublishBatch(messages, time.monotonic() + timeout)
        commit = self._shared.server.group_commit()
        while attempt.goes_on():

            def lead(attempts: Sequence[CallerBatch]) -> None:
                self._send_all(t.cast("Sequence[_PublishBatch]", attempts), attempt)

            commit.submit(attempt, lead, attempt.deadline)
        return attempt.results()

    def _send_all(
        self, attempts: Sequence[_PublishBatch], leader: _PublishBatch
    ) -> None:
        """Send once what is open of each; it has the leader's time."""
        try:
            self._prepare(leader.left)
            for portion in _portions(attempts):
                self._send(portion, leader)
        except BrokerUnavailable as error:
            for attempt in attempts:
                attempt.failed(error)
        except BrokerError as error:
            for attempt in attempts:
                attempt.give_up(error if attempt is leader else copy_error(error))

    def _send(self, portion: Portion, leader: _PublishBatch) -> None:
        parts = [part for each in portion for part in self._parts(*each, leader)]
        calls = [part.call for part in parts]
        answers = self._shared.server.publish(calls, leader.left)
        results: dict[One, Result] = {}
        for part, answer in zip(parts, answers, strict=True):
            failed = answer if isinstance(answer, Exception) else None
            key = part.attempt, part.number
            if failed is None:
                part.attempt.arrived(part.number, part.queues)
            results[key] = results.get(key) or failed
        for (attempt, number), result in results.items():
            attempt.settle(number, result)
        self._shared.wake(name for part in parts for name in part.unseen)

    def _parts(
        self, attempt: _PublishBatch, number: int, leader: _PublishBatch
    ) -> list[RoutedPart]:
        """A message on its way, in parts; what has no way is settled by that."""
        try:
            parts = self._routed(attempt, number, leader.left)
        except BrokerUnavailable:
            raise
        except Exception as error:
            # Its own caller's, and nobody else's who sends with it.
            attempt.settle(number, error)
            return []
        if not parts:
            attempt.settle(number, None)
        return parts

    def _routed(
        self, attempt: _PublishBatch, number: int, left: float
    ) -> list[RoutedPart]:
        """A message on its way to the queues that do not have it yet, if any."""
        message, there = attempt.messages[number], attempt.there(number)
        queues = [q for q in self._queues(message, left) if q not in there]
        return [
            RoutedPart(attempt, number, group, *self._addressed(message, group))
            for group in self._shared.server.group_by_slot(queues, self._key)
        ]

    def _key(self, queue: str) -> str:
        """A key of a queue that tells on which node it is."""
        return queue

    def _addressed(
        self, message: Outgoing, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        """The script that puts a message into these queues, and if they see it late."""
        raise NotImplementedError

    def _queues(self, message: Outgoing, left: float) -> tuple[str, ...]:
        exchange, key = message.exchange, message.routing_key
        queues = self._bindings.find_queues(exchange, key, left)
        if queues or not message.mandatory:
            return queues
        # What we remember may be old, and a Redis that was emptied knows no bindings.
        self._declare_again(left)
        queues = self._bindings.find_queues(exchange, key, left)
        if not queues:
            raise make_unroutable_error(message)
        return queues


class _PublishBatch(CallerBatch):
    """What became of one caller's messages so far."""

    def __init__(self, messages: Sequence[Outgoing], deadline: float) -> None:
        super().__init__(len(messages))
        self.messages = messages
        #: On :func:`time.monotonic`'s clock.
        self.deadline = deadline
        self._open = dict.fromkeys(range(len(messages)))
        self._results: list[Result] = [None] * len(messages)
        self._arrived: dict[int, set[str]] = {}
        self._last: BrokerError | None = None
        self._pause = 0.0

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def open(self) -> list[int]:
        """What is to be sent."""
        return list(self._open)

    def goes_on(self) -> bool:
        """Whether there is something to send and time for it; waits if it was tried."""
        if not self._open or self.left <= 0:
            return False
        if self._pause:
            time.sleep(min(self._pause, self.left))
        return self.left > 0

    def arrived(self, number: int, queues: Sequence[str]) -> None:
        """Note that these queues have a message; others may not be reached yet."""
        self._arrived.setdefault(number, set()).update(queues)

    def there(self, number: int) -> t.AbstractSet[str]:
        """The queues that have a message already."""
        return self._arrived.get(number, frozenset())

    def settle(self, number: int, error: Result) -> None:
        """Note the end of a message, unless trying again may help."""
        if isinstance(error, BrokerUnavailable):
            self.failed(error)
            return
        self._open.pop(number, None)
        self._results[number] = error

    def failed(self, error: BrokerUnavailable) -> None:
        """Note that there was no working connection."""
        self._last = error
        self.doubtful = self.doubtful or isinstance(error, AnswerLost)
        shortest, longest = _PAUSES
        self._pause = min(max(self._pause * 2, shortest), longest)

    def give_up(self, error: BrokerError) -> None:
        """Note that trying again does not help."""
        for number in self.open:
            self.settle(number, error)

    def results(self) -> list[Result]:
        """What became of each message, now that the time is over or all are settled."""
        # A copy: whoever still sends for us may note something later.
        results = list(self._results)
        for number in self.open:
            results[number] = self._failure()
        return results

    def _failure(self) -> BrokerError:
        if self._last is None and not self.doubtful:
            return PublishTimeout(
                "Redis did not confirm the message in time: it was still busy with what"
                " others had published before. Nothing was sent."
            )
        if self.doubtful or self._last is None:
            return PublishTimeout(
                "Redis did not confirm the message in time; it may have taken it or"
                f" not. {self._last or ''}".strip()
            )
        return copy_error(self._last)


#: A message: whose it is, and which one of that caller's.
One = tuple[_PublishBatch, int]
Portion = list[One]


def _portions(attempts: Sequence[_PublishBatch]) -> Iterator[Portion]:
    """What is to be sent, by round trips."""
    portion: Portion = []
    size = 0
    for attempt in attempts:
        for number in attempt.open:
            portion.append((attempt, number))
            size += len(attempt.messages[number].body)
            if len(portion) >= _MESSAGES or size >= _BYTES:
                yield portion
                portion, size = [], 0
    if portion:
        yield portion
