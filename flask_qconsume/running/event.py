"""An event like gevent's, whose time-outs are reliable."""

from __future__ import annotations

import threading
import typing as t

import gevent.event

if t.TYPE_CHECKING:
    # gevent's event has the same methods.
    _Event = threading.Event
else:
    _Event = gevent.event.Event


class Event(_Event):
    """gevent's ``Event``, but :meth:`wait` returns at once if the event is already set.

    After ``set()``, gevent wakes the waiting greenlets in a callback. A greenlet that
    calls gevent's own ``wait()`` before the callback has run waits for the callback,
    without a time-out (``_wait`` in gevent's ``_abstract_linkable.py``). If all earlier
    waiters time out first, gevent cancels the callback, and that greenlet never wakes.
    """

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set; return false after ``timeout`` seconds."""
        return self.is_set() or bool(super().wait(timeout))
