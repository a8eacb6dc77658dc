"""Notices that other connections have changed the file, without any lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable


class ChangeCounter:
    """Compares the number of the file's last change with the number at the last call.

    SQLite counts the commits of other connections, including those of this process.

    :param connect: Opens a connection that is used for nothing else.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self.connection: sqlite3.Connection | None = None
        self._last: int | None = None

    def has_changed(self) -> bool:
        """Return whether there was a change since the last call.

        :raises sqlite3.Error: if the file cannot be read.
        """
        if self.connection is None:
            self.connection = self._connect()
        number: int
        (number,) = self.connection.execute("PRAGMA data_version").fetchone()
        last, self._last = self._last, number
        return last != number

    def close(self) -> None:
        """Close the connection; the next call opens a new one, and returns true."""
        connection, self.connection = self.connection, None
        self._last = None
        if connection is not None:
            connection.close()
