"""An event like gevent's, but with reliable time-outs."""

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
    """gevent's ``Event``, but its :meth:`wait` returns at once if it is already set.

    gevent's own does not while it is still notifying earlier waiters: a late caller
    then waits for the same callback, without a time-out (``_wait`` in gevent's
    ``_abstract_linkable.py``). If the last of the earlier waiters times out in the same
    iteration of the event loop, gevent cancels that callback, and the late caller never
    wakes.
    """

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the event; return whether it was set within ``timeout`` seconds."""
        return self.is_set() or bool(super().wait(timeout))
