"""Failures of one consumer, counted by what raised them. Standard library only."""

from __future__ import annotations

import typing as t

#: How many different failures are remembered for a consumer, the latest ones.
_REMEMBERED = 256


class Seen(t.NamedTuple):
    """A failure, and how often it has been seen."""

    #: The file and the line that raised it; empty for an error that was never raised.
    place: str
    #: How often it was seen, now included.
    times: int


class Failures:
    """Counts failures: errors of one class, raised by the same line, are the same.

    It holds texts and numbers only, no error and no traceback.

    :param remembered: How many different failures are remembered. A failure that was
        forgotten counts from one again.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        #: The failure seen last is at the end.
        self._counts: dict[tuple[str, str], int] = {}

    def note(self, error: BaseException) -> Seen:
        """Count a failure."""
        cls = type(error)
        key = f"{cls.__module__}.{cls.__qualname__}", _place(error)
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        while len(self._counts) > self._remembered:
            self._counts.pop(next(iter(self._counts)), None)
        return Seen(key[1], count)


def _place(error: BaseException) -> str:
    raised = error.__traceback__
    if raised is None:
        return ""
    while raised.tb_next is not None:
        raised = raised.tb_next
    return f"{raised.tb_frame.f_code.co_filename}:{raised.tb_lineno}"
