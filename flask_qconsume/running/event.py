"""An event as gevent's, whose time-outs hold."""

from __future__ import annotations

import threading
import typing as t

import gevent.event

if t.TYPE_CHECKING:
    # What gevent puts in its place where it patches, with the same methods.
    _Event = threading.Event
else:
    _Event = gevent.event.Event


class Event(_Event):
    """Where it is set already, nobody waits for the end of its telling others.

    gevent has who comes while the others are being told wait for the same callback,
    without a time-out (``_wait`` in its ``_abstract_linkable.py``). Should the last of
    those others give up first, by a time-out of its own in the same turn of the loop,
    the callback is cancelled, and who came is never woken.
    """

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; whether that came true within ``timeout`` seconds."""
        return self.is_set() or bool(super().wait(timeout))
