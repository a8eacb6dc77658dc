"""Measures how long conditions last, by regular checks. No I/O, no clock.

The time that one check adds is limited. So a process that was suspended itself (by a
sleeping machine or SIGSTOP) does not blame its parts for that time.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Iterable


class ConditionTimer:
    """Measures for how many seconds a condition has lasted.

    A condition is any hashable value that lasts from check to check: a message that is
    still being settled, or a counter that should change and still has the same value.

    :param interval: The intended seconds between two checks. If more time has passed,
        at most twice the interval is added.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._held: dict[Hashable, float] = {}

    def look(
        self, conditions: Iterable[Hashable], elapsed: float | None = None
    ) -> float:
        """Note the conditions that hold now; return how long the oldest has lasted.

        :param elapsed: Seconds since the last check; by default, the interval.
        """
        step = self._interval if elapsed is None else min(elapsed, 2 * self._interval)
        before = self._held
        self._held = {
            condition: before[condition] + step if condition in before else 0.0
            for condition in conditions
        }
        return max(self._held.values(), default=0.0)
