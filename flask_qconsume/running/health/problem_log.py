"""Logs each problem of a worker when it begins, and when it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .verdict import Problem


class ProblemLog:
    """Logs problems that begin and that end, and remembers the present ones."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._known: dict[tuple[str, str], Problem] = {}

    def note(self, problem: Problem) -> bool:
        """Remember a problem; return true if it is new, so that it must be logged."""
        is_new = problem.key not in self._known
        self._known[problem.key] = problem
        return is_new

    def update(self, problems: Iterable[Problem]) -> None:
        """Compare with the last call; log problems that have begun or ended."""
        known, self._known = self._known, {p.key: p for p in problems if p.logged}
        for key, problem in self._known.items():
            if key not in known:
                self._logger.log(problem.level, "%s", problem.text)
        for key, problem in known.items():
            if key not in self._known:
                self._logger.warning("Over: %s", problem.text.partition(". ")[0])
