"""The numbers of one consumer in this process: places in its value file.

An addition like ``values[place] += 1`` is whole: CPython changes threads at calls and
jumps only.
"""

from __future__ import annotations

from bisect import bisect_left
from bisect import bisect_right
from collections.abc import Sequence

from ..outcomes import Ack
from ..outcomes import Drop
from ..outcomes import Outcome
from ..outcomes import Reject
from ..outcomes import Retry
from ..outcomes import find_kind
from .metric_table import END_TO_END_SECONDS
from .metric_table import HANDLER_SECONDS
from .metric_table import MESSAGES
from .metric_table import QUEUE_SECONDS
from .metric_table import RECONNECTS
from .metric_table import SETTLEMENT_ERRORS
from .metric_table import STALE_SETTLEMENTS
from .metric_table import SUSPECTS
from .metric_table import Metric
from .value_file import Slots
from .value_file import ValueFile

_OUTCOMES: dict[str, type[Outcome]] = {
    "ack": Ack,
    "retry": Retry,
    "reject": Reject,
    "drop": Drop,
}

_ACK = Ack()

#: Counters without a label other than the consumer.
_PLAIN = (SUSPECTS, STALE_SETTLEMENTS, SETTLEMENT_ERRORS, RECONNECTS)

_HISTOGRAMS = (HANDLER_SECONDS, QUEUE_SECONDS, END_TO_END_SECONDS)


class Histogram:
    """The numbers of one histogram: a count for each bucket, and the sum."""

    def __init__(self, metric: Metric, slots: Slots) -> None:
        self._bounds = metric.buckets
        self._values, self._first = slots
        self._sum = self._first + len(self._bounds) + 1

    def observe(self, seconds: list[float]) -> None:
        """Add the values of a list, and empty it. Negative ones count as 0.

        The publisher's clock may be ahead of this host's, and a sum must not decrease.
        """
        if len(seconds) > 1:
            self._observe_many(seconds)
            seconds.clear()
        elif seconds:
            self.observe_one(seconds.pop())

    def observe_one(self, seconds: float) -> None:
        """Add one value."""
        if seconds < 0:
            seconds = 0.0
        self._values[self._first + bisect_left(self._bounds, seconds)] += 1
        self._values[self._sum] += seconds

    def _observe_many(self, seconds: list[float]) -> None:
        # Sorting is quick, since most of them are in order.
        seconds.sort()
        if seconds[0] < 0:
            seconds = [max(0.0, each) for each in seconds]
        values, first, bounds = self._values, self._first, self._bounds
        values[self._sum] += sum(seconds)
        last, begin = bisect_left(bounds, seconds[-1]), 0
        for bucket in range(bisect_left(bounds, seconds[0]), last):
            end = bisect_right(seconds, bounds[bucket], begin)
            values[first + bucket] += end - begin
            begin = end
        values[first + last] += len(seconds) - begin


class ConsumerCounters:
    """Counts the messages of one consumer."""

    def __init__(self, file: ValueFile, consumer: str) -> None:
        self._file = file
        self._consumer = consumer
        outcomes = [(MESSAGES.name, (consumer, name), ()) for name in _OUTCOMES]
        rest = [
            (each.name, (consumer,), each.buckets) for each in (*_PLAIN, *_HISTOGRAMS)
        ]
        slots = file.add([*outcomes, *rest])
        self._values = slots[0].values
        first = [each.first for each in slots]
        self._outcomes = dict(zip(_OUTCOMES.values(), first, strict=False))
        plain = [each.name for each in _PLAIN]
        self._plain = dict(zip(plain, first[len(outcomes) :], strict=False))
        self._handling, self._waiting, self._ages = map(
            Histogram, _HISTOGRAMS, slots[-len(_HISTOGRAMS) :]
        )
        #: Places of failures and dead letters, added on demand.
        self._by_error: dict[tuple[str, str], Slots] = {}
        #: Seconds that attempts took which :meth:`add_up` has not counted yet.
        self.handling: list[float] = []
        #: Seconds for which their messages waited, if they were first attempts.
        self.waiting: list[float] = []
        #: Seconds since their messages were published, if they were last attempts.
        self.ages: list[float] = []

    def add_up(self, outcome: Outcome = _ACK) -> None:
        """Count the noted attempts, which all had this outcome."""
        number = len(self.handling)
        if not number:
            return
        place = self._outcomes[find_kind(outcome)]
        self._values[place] += number
        self._handling.observe(self.handling)
        self._waiting.observe(self.waiting)
        self._ages.observe(self.ages)

    def count(self, metric: Metric, number: int = 1) -> None:
        """Add to a counter that has no label other than the consumer."""
        self._values[self._plain[metric.name]] += number

    def count_settlement_errors(self, errors: Sequence[BaseException | None]) -> None:
        """Count the errors in a list that has ``None`` for each success."""
        failed = len(errors) - errors.count(None)
        if failed:
            self.count(SETTLEMENT_ERRORS, failed)

    def count_error(self, metric: Metric, error: str) -> None:
        """Add 1 to a counter with the label ``error``."""
        slots = self._by_error.get((metric.name, error))
        if slots is None:
            [slots] = self._file.add([(metric.name, (self._consumer, error), ())])
            self._by_error[metric.name, error] = slots
        slots.values[slots.first] += 1
