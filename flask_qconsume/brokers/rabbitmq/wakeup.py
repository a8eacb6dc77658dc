"""Waking a thread that waits for changes.

:class:`threading.Condition` would do, but it asks its lock whether a thread holds it,
and under gevent a failed attempt to take a lock lets every other greenlet run first,
because a spinning thread needs that (``LockType.acquire`` in gevent's ``thread.py``).
That would happen for each message, with the lock held.
"""

from __future__ import annotations

import threading


class Wakeup:
    """A lock, and a signal that the data under the lock have changed."""

    def __init__(self) -> None:
        #: Guards the data of which :meth:`notify` announces changes.
        self.lock = threading.Lock()
        self._changed = threading.Event()

    def notify(self) -> None:
        """Wake the waiting thread, without a greenlet switch; the lock may be held."""
        self._changed.set()

    def wait(self, timeout: float | None) -> None:
        """Wait for :meth:`notify`; return at once if it came since the last wait.

        The caller must not hold the lock.

        :param timeout: Seconds at most; ``None`` waits without a limit.
        """
        self._changed.wait(timeout)
        # Cleared before the caller looks, so that a later change wakes it again.
        self._changed.clear()
