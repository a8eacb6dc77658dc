"""Tell listeners each problem once when it begins, and once when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterable

from ...handling.events import Events
from ...handling.events import tell
from .verdict import Problem


class ProblemEvents:
    """Compares the problems of one look with those of the last, and tells changes."""

    def __init__(
        self, events: Events, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._events = events
        self._clock = clock
        #: The problems that last, and when each was seen first.
        self._known: dict[tuple[str, str], tuple[Problem, float]] = {}

    def update(self, problems: Iterable[Problem]) -> None:
        """Tell the problems that began or ended since the last call."""
        now, found = self._clock(), {problem.key: problem for problem in problems}
        for key in [key for key in found if key not in self._known]:
            self._known[key] = found[key], now
            tell(self._events.problem_began, found[key])
        for key in [key for key in self._known if key not in found]:
            problem, began = self._known.pop(key)
            tell(self._events.problem_ended, problem, now - began)
