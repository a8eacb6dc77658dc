"""Measure how long conditions hold, by regular looks. No I/O, no clock.

Time is counted in looks: a process that was suspended itself (a sleeping machine,
SIGSTOP) must not blame its parts for what they could not do meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Iterable


class ConditionTimer:
    """Timer of conditions: for how many seconds the oldest of them has held.

    A condition is any hashable value: a message that is being settled, or a counter
    that does not change.

    :param interval: Intended seconds between two looks; no look adds more than twice
        that.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._held: dict[Hashable, float] = {}

    def look(
        self, conditions: Iterable[Hashable], elapsed: float | None = None
    ) -> float:
        """Note the conditions that hold now.

        Return the seconds that the oldest of them has held.

        :param elapsed: Seconds since the last look; the interval unless given.
        """
        step = self._interval if elapsed is None else min(elapsed, 2 * self._interval)
        before = self._held
        self._held = {
            each: before[each] + step if each in before else 0.0 for each in conditions
        }
        return max(self._held.values(), default=0.0)
