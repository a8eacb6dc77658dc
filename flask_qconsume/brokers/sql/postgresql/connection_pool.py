"""A small pool of connections, each lent to one caller at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator

from ....background_thread import BackgroundThread
from ....errors import BrokerUnavailable
from .connection import PostgresConnection
from .connection import TimeLimitReached

#: Function that opens a connection. It may take longer than its caller can wait.
Connect = Callable[[], PostgresConnection]


class ConnectionAttempt:
    """The opening of a connection in a thread, so that callers can stop waiting."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self._connection: PostgresConnection | None = None
        self._error: BaseException | None = None

    def run(self, timeout: float) -> PostgresConnection:
        """Open the connection.

        :param timeout: Seconds.
        :raises TimeLimitReached: if that takes longer; a connection that opens later is
            closed.
        """
        BackgroundThread(self._open).start()
        try:
            self._ended.wait(timeout)
        finally:
            connection = self._take_or_abandon()
        if self._error is not None:
            raise self._error
        if connection is None:
            raise TimeLimitReached("the server did not answer in time")
        return connection

    def _open(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            self._error = error
        else:
            self._keep_or_close(connection)
        self._ended.set()

    def _keep_or_close(self, connection: PostgresConnection) -> None:
        with self._lock:
            if not self._abandoned:
                self._connection = connection
                return
        connection.close()

    def _take_or_abandon(self) -> PostgresConnection | None:
        with self._lock:
            self._abandoned = True
            return self._connection


class PostgresPool:
    """Up to ``size`` connections, each opened when it is first needed.

    Safe in any thread or greenlet.
    """

    def __init__(self, connect: Connect, size: int) -> None:
        self._connect = connect
        self._size = size
        self._places = threading.BoundedSemaphore(size)
        self._idle: list[PostgresConnection] = []
        self._lent: set[PostgresConnection] = set()
        self._closed = False

    @contextlib.contextmanager
    def lend(self, timeout: float) -> Iterator[PostgresConnection]:
        """Lend a connection during a block.

        A connection that is in a transaction or in a call after the block is closed.

        :param timeout: Seconds for waiting and for everything in the block.
        :raises BrokerUnavailable: if all connections stay in use, or the pool is
            closed.
        :raises psycopg.Error: if no connection can be opened.
        """
        deadline = time.monotonic() + timeout
        if not self._places.acquire(timeout=max(timeout, 0.0)):
            raise BrokerUnavailable(
                f"All {self._size} connections of this process to PostgreSQL are in"
                " use: the database is slow, or 'pool_size' in"
                " 'QCONSUME_TRANSPORT_OPTIONS' is too small."
            )
        try:
            connection = self._take(deadline)
            try:
                yield connection
            finally:
                self._put_back(connection)
        finally:
            self._places.release()

    def close(self) -> None:
        """Close all connections; calls in other threads end within 0.1 seconds."""
        self._closed = True
        for connection in list(self._lent):
            connection.interrupt()
        self.close_idle()

    def close_idle(self) -> None:
        """Close all connections that are not in use, such as those to a lost server."""
        while self._idle:
            self._idle.pop().close()

    def _take(self, deadline: float) -> PostgresConnection:
        connection = self._take_idle()
        if connection is None:
            attempt = ConnectionAttempt(self._connect)
            connection = attempt.run(deadline - time.monotonic())
        connection.deadline = deadline
        self._lent.add(connection)
        if self._closed:
            connection.interrupt()
        return connection

    def _take_idle(self) -> PostgresConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_alive():
                return connection
            connection.close()
        return None

    def _put_back(self, connection: PostgresConnection) -> None:
        self._lent.discard(connection)
        if connection.is_idle and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()
