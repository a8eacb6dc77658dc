"""A native thread that owns one connection to SQLite, and works for all callers.

SQLite waits for the disk in C, where a hub of gevent would stand still. In the thread,
code must not use anything that gevent has patched: locks, events, loggers, ``sleep``.
After each statement the thread must get the interpreter's lock back from a busy hub,
which takes up to 5 ms. So the thread executes few statements, and reads one row of
each.
"""

from __future__ import annotations

import abc
import sqlite3
import threading
import time
import typing as t
from _queue import SimpleQueue  # Not 'queue', which gevent has patched.
from collections.abc import Callable
from collections.abc import Sequence

from ....databases.busy_retry import retry_while_busy
from ....native_threads import NativeThread
from ....native_threads import ThreadNotifier
from ....native_threads import get_unpatched
from .fork_safety import ForkClosed
from .notifier_pool import NotifierPool

T = t.TypeVar("T")

#: Seconds beyond a job's time limit after which its disk counts as hung.
_HANG_SECONDS = 2.0
#: Seconds that closing waits for the thread.
_CLOSE_TIMEOUT_SECONDS = 5.0
#: Jobs that are done together, at most.
_MAX_JOBS_PER_GROUP = 100


def retry_until(call: Callable[[], T], deadline: float) -> T:
    """In a native thread: call until no other connection has the lock.

    :param deadline: By :func:`time.monotonic`.
    """
    sleep = get_unpatched("time", "sleep")
    return retry_while_busy(call, deadline - time.monotonic(), sleep)


class ThreadHangs(Exception):
    """A job was not done in time.

    :param started: Whether the thread has begun with the job.
    """

    def __init__(self, started: bool) -> None:
        super().__init__("started" if started else "not started")
        self.started = started


class ConnectionJob:
    """Work for a connection's thread; a subclass has its input and its results.

    :param deadline: Time until which the job makes sense, by :func:`time.monotonic`.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.error: Exception | None = None
        self._is_done = False
        self._notifier: ThreadNotifier | None = None
        #: Empty once the thread has begun the job, or the caller has stopped waiting.
        self._offers = [True]

    def take(self) -> bool:
        """Return true to the first caller of this method only."""
        try:
            return self._offers.pop()
        except IndexError:
            return False

    def finish(self, error: Exception | None = None) -> None:
        """End the job, and wake its caller."""
        self.error = error
        self._is_done = True
        assert self._notifier is not None
        self._notifier.notify()

    def wait(self, notifier: ThreadNotifier, send: Callable[[], object]) -> None:
        """Call ``send``, and wait until the job is done.

        :raises ThreadHangs: if it takes too long.
        :raises Exception: the error with which the thread has finished the job.
        """
        self._notifier = notifier
        end = self.deadline + _HANG_SECONDS
        try:
            send()
            while not self._is_done and (seconds_left := end - time.monotonic()) > 0:
                notifier.wait(seconds_left)
        finally:
            # The thread must not begin the job of a caller that has stopped waiting.
            is_unused = self.take()
        if self._is_done:
            if self.error is not None:
                raise self.error
        else:
            raise ThreadHangs(started=not is_unused)


class ConnectionThread(ForkClosed):
    """A native thread that opens a connection for its first job, and serves all jobs.

    :param connect: Opens the connection; called in the thread.
    """

    name: str

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__()
        self.connection: sqlite3.Connection | None = None
        #: Held by the thread, except while it waits for jobs.
        self.is_busy = get_unpatched("_thread", "allocate_lock")()
        self._connect = connect
        self._jobs: SimpleQueue[ConnectionJob | None] = SimpleQueue()
        self._notifiers = NotifierPool()
        self._is_outdated = False
        self._lock = threading.Lock()
        self._thread: NativeThread | None = None

    @property
    def is_closed(self) -> bool:
        """True before the thread is started, and after it has ended."""
        return self._thread is None or not self._thread.alive

    def run(self, job: ConnectionJob) -> None:
        """Let the thread do a job, and wait for it.

        :raises ThreadHangs: if it takes too long.
        :raises Exception: the error of the job, or of opening the connection.
        """
        self._start()
        notifier = self._notifiers.borrow()
        try:
            job.wait(notifier, lambda: self._jobs.put(job))
        finally:
            self._notifiers.give_back(notifier)

    def reopen(self) -> None:
        """Use a new connection from the next job on."""
        self._is_outdated = True

    def close(self) -> bool:
        """End the thread after all jobs that wait; return whether it ended in time."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._jobs.put(None)
        ended = thread.join(_CLOSE_TIMEOUT_SECONDS)
        if ended:  # The thread would otherwise write to closed sockets.
            self._notifiers.close()
        return ended

    def close_before_fork(self, deadline: float) -> bool:
        seconds_left = max(deadline - time.monotonic(), 0)
        if not self.is_busy.acquire(timeout=seconds_left):
            return False
        self._disconnect()
        return True

    def continue_after_fork(self) -> None:
        self.is_busy.release()

    @abc.abstractmethod
    def _serve(
        self, connection: sqlite3.Connection, jobs: Sequence[ConnectionJob]
    ) -> None:
        """Do jobs that the thread has taken, and finish each of them."""

    def _take_waiting(self, room: int = _MAX_JOBS_PER_GROUP) -> list[ConnectionJob]:
        """Return the jobs that wait now."""
        jobs: list[ConnectionJob] = []
        while len(jobs) < room and not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)
                break
            if job.take():
                jobs.append(job)
        return jobs

    def _start(self) -> None:
        if self.is_closed:
            with self._lock:
                if self.is_closed:
                    self._thread = NativeThread(self._loop, self.name).start()

    def _loop(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                if job.take():
                    with self.is_busy:
                        self._serve_safely([job, *self._take_waiting()])
                job = None
        finally:
            with self.is_busy:
                self._disconnect()

    def _serve_safely(self, jobs: Sequence[ConnectionJob]) -> None:
        try:
            connection = retry_until(self._open, max(job.deadline for job in jobs))
            self._serve(connection, jobs)
        except Exception as error:
            for job in jobs:
                job.finish(error)

    def _open(self) -> sqlite3.Connection:
        if self._is_outdated:
            self._is_outdated = False
            self._disconnect()
        if self.connection is None:
            self.connection = self._connect()
        return self.connection

    def _disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
