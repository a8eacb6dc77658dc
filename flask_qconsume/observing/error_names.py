"""Names of error classes, of which only so many become label values."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator

from .metric_table import BY_NAME
from .series import Series

#: How many classes are named; the rest is ``other``.
MAX_NAMES = 50

#: How many classes the counts of dead processes name together. An app may create
#: classes while it runs, and every process different ones.
MAX_SUMMED_NAMES = 200

#: Characters of the longest name.
_MAX_LENGTH = 100

OTHER = "other"


class ErrorNames:
    """The names of error classes that one process counts separately."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def limit(self, name: str) -> str:
        """Return the name, or ``other`` if there are 50 names already."""
        name = name[:_MAX_LENGTH].encode("ascii", "backslashreplace").decode()
        if name not in self._names and len(self._names) >= MAX_NAMES:
            return OTHER
        self._names.add(name)
        return name


def limit_names(counts: Iterable[Series]) -> Iterator[Series]:
    """Yield counts of several processes; errors beyond 200 names become ``other``."""
    names: set[str] = set()
    for series in counts:
        metric = BY_NAME.get(series.name)
        if metric is not None and metric.labels[1:] == ("error",):
            consumer, name = series.labels
            if name not in names and len(names) >= MAX_SUMMED_NAMES:
                name = OTHER
            names.add(name)
            series = series._replace(labels=(consumer, name))
        yield series
