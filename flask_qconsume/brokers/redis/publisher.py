"""Publishes messages to the queues bound to their exchange, with retries.

Safe in any thread or greenlet: callers that publish at the same time share round trips.
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

_MAX_MESSAGES_PER_ROUND_TRIP = 200
_MAX_BYTES_PER_ROUND_TRIP = 4 * 1024 * 1024
#: Seconds between two attempts; they double from the shortest to the longest.
_SHORTEST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0

Result = Exception | None


@dataclass(frozen=True)
class RoutedPart:
    """A message, and those of its queues that one script can write to."""

    batch: PublishRequest
    #: The message's index in the batch.
    number: int
    queues: tuple[str, ...]
    call: Call
    #: Whether the queues' blocked readers must be woken, since the message does not.
    needs_wake: bool


class Publisher:
    """Publishes messages; each goes to all of its queues, or to none of them.

    In a cluster, this holds for queues in the same slot. A subclass knows the keys.
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
        """Publish messages; during an outage, retry until the time-out.

        :param timeout: Seconds for all messages together.
        :returns: For each message ``None``, or the error if it was not confirmed.
        """
        batch = PublishRequest(messages, time.monotonic() + timeout)
        commit = self._shared.server.group_commit()

        def send(batches: Sequence[CallerBatch]) -> None:
            self._send_all(t.cast("Sequence[PublishRequest]", batches), batch)

        while batch.await_next_attempt():
            commit.submit(batch, send, batch.deadline)
        return batch.results()

    def _send_all(
        self, batches: Sequence[PublishRequest], leader: PublishRequest
    ) -> None:
        """Send unfinished messages of all batches, until the leader's deadline."""
        try:
            self._prepare(leader.left)
            for trip in _split_into_round_trips(batches):
                self._send(trip, leader)
        except BrokerUnavailable as error:
            for batch in batches:
                batch.note_outage(error)
        except BrokerError as error:
            for batch in batches:
                batch.fail(error if batch is leader else copy_error(error))

    def _send(self, trip: RoundTrip, leader: PublishRequest) -> None:
        routed_parts = [
            routed_part
            for batch, number in trip
            for routed_part in self._route_or_settle(batch, number, leader.left)
        ]
        calls = [routed_part.call for routed_part in routed_parts]
        answers = self._shared.server.publish(calls, leader.left)
        results: dict[OwnMessage, Result] = {}
        for routed_part, answer in zip(routed_parts, answers, strict=True):
            error = answer if isinstance(answer, Exception) else None
            key = routed_part.batch, routed_part.number
            if error is None:
                routed_part.batch.note_arrival(routed_part.number, routed_part.queues)
            results[key] = results.get(key) or error
        for (batch, number), result in results.items():
            batch.settle(number, result)
        self._shared.wake(
            queue
            for routed_part in routed_parts
            if routed_part.needs_wake
            for queue in routed_part.queues
        )

    def _route_or_settle(
        self, batch: PublishRequest, number: int, seconds_left: float
    ) -> list[RoutedPart]:
        """Find a message's queues; if there are none left, set its result."""
        try:
            routed_parts = self._route(batch, number, seconds_left)
        except BrokerUnavailable:
            raise
        except Exception as error:
            # The error concerns this message only, not the messages sent with it.
            batch.settle(number, error)
            return []
        if not routed_parts:
            batch.settle(number, None)
        return routed_parts

    def _route(
        self, batch: PublishRequest, number: int, seconds_left: float
    ) -> list[RoutedPart]:
        """Find the queues that have not got a message yet, by cluster slot."""
        message, reached = batch.messages[number], batch.reached_queues(number)
        queues = [
            q for q in self._find_queues(message, seconds_left) if q not in reached
        ]
        return [
            RoutedPart(batch, number, group, *self._create_call(message, group))
            for group in self._shared.server.group_by_slot(queues, self._key_of)
        ]

    def _key_of(self, queue: str) -> str:
        """Return a key of the queue, to find the queue's node in a cluster."""
        return queue

    def _create_call(
        self, message: Outgoing, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        """Return a script that puts a message into queues; and if readers must wake.

        Blocked readers must be woken if Redis does not end their wait for this message,
        for example because it is delayed.
        """
        raise NotImplementedError

    def _find_queues(self, message: Outgoing, seconds_left: float) -> tuple[str, ...]:
        exchange, key = message.exchange, message.routing_key
        queues = self._bindings.find_queues(exchange, key, seconds_left)
        if queues or not message.mandatory:
            return queues
        # The cache may be old, and a Redis that was emptied has lost the bindings.
        self._declare_again(seconds_left)
        queues = self._bindings.find_queues(exchange, key, seconds_left)
        if not queues:
            raise make_unroutable_error(message)
        return queues


class PublishRequest(CallerBatch):
    """The messages of one call of :meth:`Publisher.publish`, with the results so far.

    :param deadline: Time to give up, by :func:`time.monotonic`.
    """

    def __init__(self, messages: Sequence[Outgoing], deadline: float) -> None:
        super().__init__(len(messages))
        self.messages = messages
        self.deadline = deadline
        self._open = dict.fromkeys(range(len(messages)))
        self._results: list[Result] = [None] * len(messages)
        self._reached_queues: dict[int, set[str]] = {}
        self._last_outage: BrokerError | None = None
        self._pause = 0.0

    @property
    def left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def open(self) -> list[int]:
        """The indexes of the messages that have no result yet."""
        return list(self._open)

    def await_next_attempt(self) -> bool:
        """Pause after an outage; return whether another attempt is possible."""
        if not self._open or self.left <= 0:
            return False
        if self._pause:
            time.sleep(min(self._pause, self.left))
        return self.left > 0

    def note_arrival(self, number: int, queues: Sequence[str]) -> None:
        """Remember that these queues have got a message."""
        self._reached_queues.setdefault(number, set()).update(queues)

    def reached_queues(self, number: int) -> t.AbstractSet[str]:
        """Return the queues that a message has reached."""
        return self._reached_queues.get(number, frozenset())

    def settle(self, number: int, error: Result) -> None:
        """Set the result of a message, unless it is to be tried again."""
        if isinstance(error, BrokerUnavailable):
            self.note_outage(error)
            return
        self._open.pop(number, None)
        self._results[number] = error

    def note_outage(self, error: BrokerUnavailable) -> None:
        """Remember that Redis did not answer; choose the next pause."""
        # The error of an attempt cut off by the deadline tells less than earlier
        # errors.
        if self._last_outage is None or self.left > 0:
            self._last_outage = error
        self.doubtful = self.doubtful or isinstance(error, AnswerLost)
        pause = max(self._pause * 2, _SHORTEST_PAUSE_SECONDS)
        self._pause = min(pause, _LONGEST_PAUSE_SECONDS)

    def fail(self, error: BrokerError) -> None:
        """Set an error as the result of all messages without a result."""
        for number in self.open:
            self.settle(number, error)

    def results(self) -> list[Result]:
        """Return the result of each message; those without one have timed out."""
        # A copy, since a leader that is late may still settle messages.
        results = list(self._results)
        for number in self.open:
            results[number] = self._create_timeout_error()
        return results

    def _create_timeout_error(self) -> BrokerError:
        if self._last_outage is None and not self.doubtful:
            return PublishTimeout(
                "Redis did not confirm the message in time: it was still busy with"
                " messages published before. Nothing was sent."
            )
        if self.doubtful or self._last_outage is None:
            return PublishTimeout(
                "Redis did not confirm the message in time; it may have taken it or"
                f" not. {self._last_outage or ''}".strip()
            )
        return copy_error(self._last_outage)


#: A batch, and the index of one of its messages.
OwnMessage = tuple[PublishRequest, int]
RoundTrip = list[OwnMessage]


def _split_into_round_trips(batches: Sequence[PublishRequest]) -> Iterator[RoundTrip]:
    """Divide unfinished messages of all callers into round trips of limited size."""
    trip: RoundTrip = []
    size = 0
    for batch in batches:
        for number in batch.open:
            trip.append((batch, number))
            size += len(batch.messages[number].body)
            if (
                len(trip) >= _MAX_MESSAGES_PER_ROUND_TRIP
                or size >= _MAX_BYTES_PER_ROUND_TRIP
            ):
                yield trip
                trip, size = [], 0
    if trip:
        yield trip
