"""Connections by which callers read, each in its own thread."""

from __future__ import annotations

import contextlib
import sqlite3
import typing as t
from collections.abc import Callable

#: Idle connections that are kept. With gevent a process needs one connection, since
#: no other greenlet runs while rows are read.
_MAX_IDLE_CONNECTIONS = 4


class ReadConnections:
    """Lends connections to threads that read at the same time.

    :param connect: Opens a connection.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._lent: set[sqlite3.Connection] = set()
        #: Changes when lent connections must be closed instead of being reused.
        self._generation = 0

    @contextlib.contextmanager
    def borrow(self) -> t.Iterator[sqlite3.Connection]:
        """Lend a connection for a block, which must not let other greenlets run."""
        generation = self._generation
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        self._lent.add(connection)
        try:
            yield connection
        finally:
            self._lent.discard(connection)
            if (
                generation == self._generation
                and len(self._idle) < _MAX_IDLE_CONNECTIONS
            ):
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close all idle connections now, and lent connections after their blocks."""
        self._generation += 1
        while self._idle:
            self._idle.pop().close()

    def list_all(self) -> list[sqlite3.Connection]:
        """Return all connections, which a forked child must not use."""
        return [*self._idle, *self._lent]
