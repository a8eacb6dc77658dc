"""Failures of one consumer, counted by the line that raised them.

Standard library only.
"""

from __future__ import annotations

import typing as t

#: Different failures that are remembered for a consumer, the latest ones.
_MAX_REMEMBERED = 256


class Seen(t.NamedTuple):
    """A failure and its count."""

    #: The file and the line that raised it; empty for an error that was never raised.
    place: str
    #: The number of times, this one included.
    times: int


class Failures:
    """Counts failures; errors of one class that the same line raised are the same.

    The counts hold texts and numbers only, no errors and no tracebacks.

    :param remembered: The number of different failures that are remembered. The count
        of a forgotten failure begins at 1 again.
    """

    def __init__(self, remembered: int = _MAX_REMEMBERED) -> None:
        self._remembered = remembered
        #: The latest failure is at the end.
        self._counts: dict[tuple[str, str], int] = {}

    def count(self, error: BaseException) -> Seen:
        """Count a failure; return its place and count."""
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
