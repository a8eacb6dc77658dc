"""Messages that a caller publishes, with the results so far. No I/O."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from ..errors import BrokerError
from ..errors import BrokerUnavailable
from ..errors import PublishTimeout
from ..message import Outgoing
from .group_commit import CallerBatch

_MAX_MESSAGES_PER_ROUND_TRIP = 200
_MAX_BYTES_PER_ROUND_TRIP = 4 * 1024 * 1024
#: Seconds between two attempts; they double from the shortest to the longest.
_SHORTEST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0

Result = Exception | None


class AnswerLost(BrokerUnavailable):
    """The connection was lost after the broker may have run a command."""


def copy_error(error: BrokerError) -> BrokerError:
    """Return a copy of an error, so that two callers can raise it.

    An exception that is raised twice gets the tracebacks of both callers.
    """
    kind = BrokerUnavailable if isinstance(error, BrokerUnavailable) else type(error)
    copied = kind(str(error))
    copied.__cause__ = error
    return copied


class PublishRequest(CallerBatch):
    """The messages of one call of :meth:`Publisher.publish`, with the results so far.

    :param deadline: Time to give up, by :func:`time.monotonic`.
    :param broker: The broker's name, for errors.
    """

    def __init__(
        self, messages: Sequence[Outgoing], deadline: float, broker: str
    ) -> None:
        super().__init__(len(messages))
        self._broker = broker
        self.messages = messages
        self.deadline = deadline
        self._open = dict.fromkeys(range(len(messages)))
        self._results: list[Result] = [None] * len(messages)
        self._reached_queues: dict[int, set[str]] = {}
        self._last_outage: BrokerError | None = None
        self._pause = 0.0

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def open(self) -> list[int]:
        """The indexes of the messages that have no result yet."""
        return list(self._open)

    def await_next_attempt(self) -> bool:
        """Pause after an outage; return whether another attempt is possible."""
        if not self._open or self.seconds_left <= 0:
            return False
        if self._pause:
            time.sleep(min(self._pause, self.seconds_left))
        return self.seconds_left > 0

    def note_reached_queues(self, number: int, queues: Sequence[str]) -> None:
        """Remember that a message has reached these queues."""
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
        """Remember that the broker did not answer; choose the next pause."""
        # The error of an attempt cut off by the deadline tells less than earlier
        # errors.
        if self._last_outage is None or self.seconds_left > 0:
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
                f"{self._broker} did not confirm the message in time: it was still busy"
                " with messages published before. Nothing was sent."
            )
        if self.doubtful or self._last_outage is None:
            return PublishTimeout(
                f"{self._broker} did not confirm the message in time; it may have taken"
                f" it or not. {self._last_outage or ''}".strip()
            )
        return copy_error(self._last_outage)


#: A request, and the index of one of its messages.
RequestMessage = tuple[PublishRequest, int]
RoundTrip = list[RequestMessage]


def split_into_round_trips(batches: Sequence[PublishRequest]) -> Iterator[RoundTrip]:
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
