"""Lets the writers of one process take SQLite's write lock one after the other.

SQLite gives the lock to the next attempt after a commit. Without a queue, a greenlet
that writes again and again takes the lock each time, and the other ones wait until they
fail: with ten greenlets that waited 2 ms in each transaction, some waited for 5 s.
Standard library only.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections import deque
from collections.abc import Callable

from .busy_retry import retry_while_busy

T = t.TypeVar("T")


class WriterQueue:
    """A queue of greenlets or threads, of which the first one tries to take the lock.

    The queue does not know when the lock is released. Another process may have it, too.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._turns: deque[threading.Event] = deque()

    def call_in_turn(self, call: Callable[[], T], timeout: float) -> T:
        """Return ``call()``, which takes the lock, after earlier callers' calls.

        :param timeout: Seconds after which the lock's error is raised.
        :raises sqlite3.Error: as ``call()``.
        """
        deadline = time.monotonic() + timeout
        turn = threading.Event()
        with self._mutex:
            self._turns.append(turn)
            is_first = self._turns[0] is turn
        try:
            if not is_first:
                turn.wait(timeout)
            return retry_while_busy(call, deadline - time.monotonic())
        finally:
            self._leave(turn)

    def _leave(self, turn: threading.Event) -> None:
        with self._mutex:
            self._turns.remove(turn)
            if self._turns:
                self._turns[0].set()
