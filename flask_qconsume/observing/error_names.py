"""Names of error classes, of which only so many become label values."""

from __future__ import annotations

#: How many classes are named; the rest is ``other``.
MAX_NAMES = 50

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
