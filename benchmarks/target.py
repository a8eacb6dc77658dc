"""Targets of the project, printed beside the measured figures."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Target:
    """A limit for one figure.

    :param limit: The most that the figure may be; or the least, if not ``at_most``.
    """

    limit: float
    unit: str = ""
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}{self.unit}"

    def verdict(self, figure: float) -> str:
        """Return whether a figure meets the target, as a word for a table."""
        holds = figure <= self.limit if self.at_most else figure >= self.limit
        return "holds" if holds else "missed"
