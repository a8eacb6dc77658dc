"""Waking a thread that waits for changes, and stopping its copies in forked children.

:class:`threading.Condition` would do the first, but it asks its lock whether a thread
holds it, and under gevent a failed attempt to take a lock lets every other greenlet run
first, because a spinning thread needs that (``LockType.acquire`` in gevent's
``thread.py``). That would happen for each message, with the lock held.
"""

from __future__ import annotations

import os
import threading


class Wakeup:
    """A lock, and a signal to one waiting thread that the guarded state has changed."""

    def __init__(self) -> None:
        #: Guards the state that :meth:`notify` announces changes of.
        self.lock = threading.Lock()
        self._changed = threading.Event()

    def notify(self) -> None:
        """Wake the waiting thread. Works with and without the lock; never switches."""
        self._changed.set()

    def wait(self, timeout: float | None) -> None:
        """Wait for a change since the last wait. The caller does not hold the lock.

        :param timeout: Seconds at most; ``None`` waits without a limit.
        """
        self._changed.wait(timeout)
        # Cleared before the caller looks, so that a later change wakes it again.
        self._changed.clear()


class ForkGuard:
    """Recognises copies of a thread in a forked child.

    They exist under gevent only: there a thread is a greenlet, and a fork copies
    greenlets.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the process that made this object."""
        return os.getpid() != self._pid

    def block_if_forked(self) -> None:
        """Block forever in a forked child.

        If the copied thread ended there, the child's :mod:`threading`, which has
        forgotten the thread, would raise.
        """
        if self.is_forked:
            threading.Event().wait()
