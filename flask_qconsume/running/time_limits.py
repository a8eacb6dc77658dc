"""Handlers' time limits, which their own ``except`` cannot hide.

A timer for each message would cost more than handing it over. Nearly all handlers end
in time, so there is one timer, for the first limit that may be over; what it finds
when it rings tells when it has to ring again.
"""

from __future__ import annotations

import math
import time
import typing as t

import gevent

from ..errors import HandlerTimeout
from . import greenlets


class TimeLimits:
    """Makes the time limits of handlers, for greenlets of one thread."""

    def __init__(self) -> None:
        #: The limits that run; each enters itself, and leaves.
        self.running: dict[TimeLimit, None] = {}
        #: When the timer rings.
        self.due = math.inf
        self._timer: t.Any = None

    def __call__(self, seconds: float) -> TimeLimit:
        return TimeLimit(self, seconds)

    def close(self) -> None:
        """Free the timer; no handler may be running."""
        self.due = math.inf
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def ring_at(self, until: float) -> None:
        """Have the timer ring then, instead of whenever it would."""
        self.close()
        self.due = until
        wait = max(0.0, until - time.monotonic())
        self._timer = gevent.get_hub().loop.timer(wait)
        self._timer.start(self._ring)

    def _ring(self) -> None:
        """Called in the hub, which each ``throw`` comes back to."""
        now = time.monotonic()
        for limit in [limit for limit in self.running if limit.until <= now]:
            # Those before it may have led to its end.
            if limit in self.running:
                del self.running[limit]
                limit.throw()
        self.close()
        if self.running:
            self.ring_at(min(limit.until for limit in self.running))


class TimeLimit:
    """Throws :class:`HandlerTimeout` into the greenlet that entered it, once.

    Whoever catches it and ends as if nothing had happened gets it again at the end of
    the block: work that was cut off must not count as done.
    """

    __slots__ = ("_error", "_greenlet", "_limits", "_seconds", "until")

    def __init__(self, limits: TimeLimits, seconds: float) -> None:
        self._limits = limits
        self._seconds = seconds
        self._error: HandlerTimeout | None = None

    def __enter__(self) -> None:
        limits = self._limits
        self._greenlet = gevent.getcurrent()
        #: On :func:`time.monotonic`'s clock.
        self.until = until = time.monotonic() + self._seconds
        limits.running[self] = None
        if until < limits.due:
            limits.ring_at(until)

    def throw(self) -> None:
        """Time is up; called in the hub."""
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
