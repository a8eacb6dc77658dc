"""A handler's time limit, which its own ``except`` cannot hide."""

from __future__ import annotations

import typing as t

import gevent

from ..errors import HandlerTimeout


class TimeLimit:
    """Throws :class:`HandlerTimeout` into the greenlet that entered it, once.

    Whoever catches it and ends as if nothing had happened gets it again at the end of
    the block: work that was cut off must not count as done.
    """

    def __init__(self, seconds: float) -> None:
        self._error = HandlerTimeout(seconds)
        self._timer = gevent.Timeout(seconds, self._error)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, kind: t.Any, error: t.Any, traceback: t.Any) -> None:
        fired = not self._timer.pending
        self._timer.close()
        if fired and error is None:
            raise self._error
