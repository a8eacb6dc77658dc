"""Lets the writers of one process take SQLite's write lock one after the other.

After a commit, SQLite gives the lock to the next attempt. Without a queue, a greenlet
that writes again and again gets the lock each time, and other greenlets wait until they
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
    """A queue of greenlets or threads, whose first member tries to take the lock.

    The queue is not told when the lock is released. Another process may have the lock.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._turns: deque[threading.Event] = deque()

    def call_in_turn(self, call: Callable[[], T], timeout: float) -> T:
        """Return ``call()``, which takes the lock, after earlier callers' calls.

        :param timeout: Seconds after which the lock's error is raised.
        :raises sqlite3.Error: the error of the last attempt.
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
