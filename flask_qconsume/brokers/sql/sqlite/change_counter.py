"""Notices that other connections have changed the file, without any lock."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from ....native_threads import get_unpatched
from .fork_safety import ForkClosed


class ChangeCounter(ForkClosed):
    """Compares the number of the file's last change with the number at the last call.

    SQLite counts the commits of other connections, including those of this process.

    :param connect: Opens a connection that is used for nothing else.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__()
        self._connect = connect
        self.connection: sqlite3.Connection | None = None
        self._last: int | None = None
        #: Held while the connection is used, and during a fork.
        self._gate = get_unpatched("_thread", "allocate_lock")()

    def has_changed(self) -> bool:
        """Return whether there was a change since the last call.

        :raises sqlite3.Error: if the file cannot be read.
        """
        number: int
        with self._gate:
            if self.connection is None:
                self.connection = self._connect()
            (number,) = self.connection.execute("PRAGMA data_version").fetchone()
        last, self._last = self._last, number
        return last != number

    def close_before_fork(self, deadline: float) -> bool:
        if not self._gate.acquire(timeout=max(deadline - time.monotonic(), 0)):
            return False
        self.close()
        return True

    def continue_after_fork(self) -> None:
        self._gate.release()

    def close(self) -> None:
        """Close the connection; the next call opens a new one, and returns true."""
        connection, self.connection = self.connection, None
        self._last = None
        if connection is not None:
            connection.close()
