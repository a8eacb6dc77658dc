"""Logs each trouble once when it begins, and once when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .health.verdict import Trouble


class TroubleLog:
    """Remembers which troubles are logged."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._known: dict[tuple[str, str], Trouble] = {}

    def note(self, trouble: Trouble) -> bool:
        """Take it as logged by the caller; whether it was not yet."""
        is_new = trouble.key not in self._known
        self._known[trouble.key] = trouble
        return is_new

    def update(self, troubles: Iterable[Trouble]) -> None:
        """Log what has begun and what is over since the last call."""
        known, self._known = self._known, {t.key: t for t in troubles if t.logged}
        for key, trouble in self._known.items():
            if key not in known:
                self._logger.log(trouble.level, "%s", trouble.text)
        for key, trouble in known.items():
            if key not in self._known:
                self._logger.warning("Over: %s", trouble.text.partition(". ")[0])
