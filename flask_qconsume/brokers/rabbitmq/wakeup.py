"""A lock, and a bell for the one thread that waits for news of what it guards.

A condition is both in one. But to ring one asks its lock whether somebody has it, and
under gevent who is told so lets every other greenlet run first, since a spinning thread
needs that (``LockType.acquire`` in gevent's ``thread.py``): with the lock in hand, and
for each message.
"""

from __future__ import annotations

import threading


class Bell:
    """Rung by anybody, with the lock or without; heard by one thread."""

    def __init__(self) -> None:
        #: Guards whatever there is news of.
        self.lock = threading.Lock()
        self._rung = threading.Event()

    def ring(self) -> None:
        """Say that there is news. It lets nobody else run."""
        self._rung.set()

    def wait(self, timeout: float | None) -> None:
        """Wait for news that came after the last time, without holding the lock.

        :param timeout: Seconds, at the most; ``None`` has no end.
        """
        self._rung.wait(timeout)
        # Before the caller looks: what is told from now on rings again.
        self._rung.clear()
