"""Connections by which callers read, each in its own thread."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import typing as t
from collections.abc import Callable

from ....native_threads import get_unpatched
from .fork_safety import ForkClosed

#: Idle connections that are kept. With gevent a process needs one connection, since
#: no other greenlet runs while rows are read.
_MAX_IDLE_CONNECTIONS = 4
#: Between two looks whether other threads have given back their connections.
_PAUSE_SECONDS = 0.001


class ReadConnections(ForkClosed):
    """Lends connections to threads that read at the same time.

    :param connect: Opens a connection.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__()
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._lent: set[sqlite3.Connection] = set()
        #: Held while a connection is lent, and during a fork.
        self._gate = get_unpatched("_thread", "allocate_lock")()
        #: Changes when lent connections must be closed instead of being reused.
        self._generation = 0

    @contextlib.contextmanager
    def borrow(self) -> t.Iterator[sqlite3.Connection]:
        """Lend a connection for a block, which must not let other greenlets run."""
        with self._gate:
            generation = self._generation
            connection = self._idle.pop() if self._idle else self._connect()
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

    def close_before_fork(self, deadline: float) -> bool:
        seconds_left = max(deadline - time.monotonic(), 0)
        if not self._gate.acquire(timeout=seconds_left):
            return False
        while self._lent and time.monotonic() < deadline:
            get_unpatched("time", "sleep")(_PAUSE_SECONDS)
        self.close()
        if self._lent:
            self._gate.release()
        return not self._lent

    def continue_after_fork(self) -> None:
        self._gate.release()

    def list_all(self) -> list[sqlite3.Connection]:
        """Return all connections, which a forked child must not use."""
        return [*self._idle, *self._lent]
