"""Measure how long conditions last, by checking them regularly. No I/O, no clock.

The time that one check adds is limited. So a process that was suspended itself (by a
sleeping machine or SIGSTOP) does not blame its parts for that time.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Iterable


class ConditionTimer:
    """Measures for how many seconds the oldest of several conditions has lasted.

    A condition is any hashable value that is passed at each check while it holds: a
    message that is being settled, or the present value of a counter that should change.

    :param interval: The intended seconds between two checks; one check adds at most
        twice that.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._held: dict[Hashable, float] = {}

    def look(
        self, conditions: Iterable[Hashable], elapsed: float | None = None
    ) -> float:
        """Record the conditions that hold now; return the oldest one's age in seconds.

        :param elapsed: Seconds since the last check; the interval unless given.
        """
        step = self._interval if elapsed is None else min(elapsed, 2 * self._interval)
        before = self._held
        self._held = {
            each: before[each] + step if each in before else 0.0 for each in conditions
        }
        return max(self._held.values(), default=0.0)
