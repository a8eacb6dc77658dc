"""Time limits of handlers, which the handlers' own ``except`` cannot hide.

A timer for each message would take longer than passing the message to its handler.
Nearly all handlers end in time, so all limits share one timer. It is set for the
earliest limit; when it fires, it is set again for the next limit still in force.
"""

from __future__ import annotations

import math
import time
import typing as t

import gevent

from ..errors import HandlerTimeout
from . import greenlets


class TimeLimits:
    """Creates the time limits of handlers, with one timer for all of them."""

    def __init__(self) -> None:
        #: The limits in force; each adds and removes itself.
        self.running: dict[TimeLimit, None] = {}
        #: When the timer fires, on :func:`time.monotonic`'s clock.
        self.due = math.inf
        self._timer: t.Any = None

    def __call__(self, seconds: float) -> TimeLimit:
        return TimeLimit(self, seconds)

    def close(self) -> None:
        """Cancel the timer."""
        self.due = math.inf
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def set_timer(self, until: float) -> None:
        """Set the timer to ``until``, in place of the time set before."""
        self.close()
        self.due = until
        wait = max(0.0, until - time.monotonic())
        self._timer = gevent.get_hub().loop.timer(wait)
        self._timer.start(self._end_overdue)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for limit in [limit for limit in self.running if limit.until <= now]:
            # A greenlet that was thrown into before may have ended this limit.
            if limit in self.running:
                del self.running[limit]
                limit.throw()
        self.close()
        if self.running:
            self.set_timer(min(limit.until for limit in self.running))


class TimeLimit:
    """Context manager that throws ``HandlerTimeout`` into a block that takes too long.

    If the code in the block catches the error and ends normally, the error is raised
    again at the end of the block: work that was cut off must not count as done.
    """

    __slots__ = ("_error", "_greenlet", "_limits", "_seconds", "until")

    def __init__(self, limits: TimeLimits, seconds: float) -> None:
        self._limits = limits
        self._seconds = seconds
        self._error: HandlerTimeout | None = None

    def __enter__(self) -> None:
        limits = self._limits
        self._greenlet = gevent.getcurrent()
        #: When the limit ends, on :func:`time.monotonic`'s clock.
        self.until = until = time.monotonic() + self._seconds
        limits.running[self] = None
        if until < limits.due:
            limits.set_timer(until)

    def throw(self) -> None:
        """Throw :class:`HandlerTimeout`; called by gevent's event loop."""
        self._error = HandlerTimeout(self._seconds)
        self._greenlet.throw(self._error)

    def __exit__(self, kind: t.Any, error: t.Any, traceback: t.Any) -> None:
        if greenlets.copies and self._greenlet in greenlets.copies:
            greenlets.end_child()
        self._limits.running.pop(self, None)
        if self._error is not None and error is None:
            try:
                raise self._error
            finally:
                self._error = None
