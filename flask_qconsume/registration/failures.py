"""Counts the failures of one consumer, by the line of code that raised the error.

Standard library only.
"""

from __future__ import annotations

import typing as t

#: How many different failures of a consumer are remembered: the latest ones.
_MAX_REMEMBERED = 256


class Seen(t.NamedTuple):
    """A kind of failure: its place in the code, and how often it has happened."""

    #: The file and the line that raised it; empty for an error that was never raised.
    place: str
    #: How often it has happened, this time included.
    times: int


class Failures:
    """Counts failures by the class of the error and the line that raised it.

    The counts hold texts and numbers only, no errors and no tracebacks.

    :param remembered: How many different failures are remembered. The count of a
        forgotten failure begins at 1 again.
    """

    def __init__(self, remembered: int = _MAX_REMEMBERED) -> None:
        self._remembered = remembered
        #: The latest failure is at the end.
        self._counts: dict[tuple[str, str], int] = {}

    def count(self, error: BaseException) -> Seen:
        """Count one failure; return its place in the code, and its number so far."""
        cls = type(error)
        key = f"{cls.__module__}.{cls.__qualname__}", _find_place(error)
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        while len(self._counts) > self._remembered:
            self._counts.pop(next(iter(self._counts)), None)
        return Seen(key[1], count)


def _find_place(error: BaseException) -> str:
    raised = error.__traceback__
    if raised is None:
        return ""
    while raised.tb_next is not None:
        raised = raised.tb_next
    return f"{raised.tb_frame.f_code.co_filename}:{raised.tb_lineno}"
