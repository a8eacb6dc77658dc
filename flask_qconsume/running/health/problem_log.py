"""Log each problem once when it begins, and once when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .verdict import Problem


class ProblemLog:
    """Logs problems that begin or end, and remembers those that last."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._known: dict[tuple[str, str], Problem] = {}

    def note(self, problem: Problem) -> bool:
        """Remember a problem; return true if it is new, and the caller is to log it."""
        is_new = problem.key not in self._known
        self._known[problem.key] = problem
        return is_new

    def update(self, problems: Iterable[Problem]) -> None:
        """Log the problems that began or ended since the last call."""
        known, self._known = self._known, {p.key: p for p in problems if p.logged}
        for key, problem in self._known.items():
            if key not in known:
                self._logger.log(problem.level, "%s", problem.text)
        for key, problem in known.items():
            if key not in self._known:
                self._logger.warning("Over: %s", problem.text.partition(". ")[0])
