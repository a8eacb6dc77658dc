"""Wakes callers when the broker has confirmed their records. Knows no Kafka client.

To wake a greenlet, a native thread needs a socket and a round of gevent's event loop.
So of all callers on one event loop, a single caller (the leader) waits for the socket.
It wakes the other callers by locks, which is faster.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque

from ....errors import PublishTimeout
from ....native_threads import ThreadNotifier

_NOT_REPORTED = PublishTimeout()


class PendingReports:
    """The delivery reports of one call of :meth:`KafkaProducer.send`."""

    def __init__(self, size: int, listener: ReportListener) -> None:
        self._errors: list[Exception | None] = [_NOT_REPORTED] * size
        self._listener = listener
        self._reported = 0
        self._expected = size
        self._is_awaited = False
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def errors(self) -> list[Exception | None]:
        """For each record ``None`` or its error; a time-out if no report came."""
        # Each record gets its own exception, because callers may raise them.
        return [
            create_timeout_error() if error is _NOT_REPORTED else error
            for error in self._errors
        ]

    @property
    def is_complete(self) -> bool:
        return self._reported >= self._expected

    def report(self, index: int, error: Exception | None) -> None:
        """Store the delivery report of one record; safe in any thread."""
        self._errors[index] = error
        self._reported += 1
        if self._is_awaited and self.is_complete:
            self._listener.notify(self)

    def fail(self, index: int, error: Exception) -> None:
        """Store the error of a record that the Kafka client did not accept."""
        self._errors[index] = error
        self._expected -= 1

    def wait(self, deadline: float) -> None:
        """Wait until all reports have arrived, at most until the deadline."""
        # Set before completeness is checked: a report that comes between notifies.
        self._is_awaited = True
        if not self.is_complete:
            self._listener.wait(self, deadline)

    def sleep(self, timeout: float) -> None:
        """Wait until :meth:`wake` is called; return at once if it was called before."""
        self._asleep.acquire(timeout=timeout)

    def wake(self) -> None:
        """End :meth:`sleep`, which must run in the same thread under gevent."""
        with contextlib.suppress(RuntimeError):  # It is awake already.
            self._asleep.release()


class ReportListener:
    """Wakes greenlets, or threads, when their delivery reports arrive."""

    def __init__(self) -> None:
        self._notifier = ThreadNotifier()
        self._leading = threading.Lock()
        #: Reports in the order of their waits; a dictionary, because a set has none.
        self._waiting: dict[PendingReports, None] = {}
        self._completed: deque[PendingReports] = deque()
        self._closed = False

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def notify(self, reports: PendingReports) -> None:
        """Wake the caller that waits for these reports. Any thread may call this."""
        self._completed.append(reports)
        self._notifier.notify()

    def wait(self, reports: PendingReports, deadline: float) -> None:
        """Wait until the reports are complete, or until the deadline."""
        self._waiting[reports] = None
        try:
            while (
                not reports.is_complete
                and (seconds_left := deadline - time.monotonic()) > 0
            ):
                if self._try_lead():
                    self._lead(reports, seconds_left)
                else:
                    reports.sleep(seconds_left)
        finally:
            del self._waiting[reports]
            self._pass_lead()

    def close(self) -> None:
        self._closed = True
        if self.is_idle:
            self._notifier.close()

    def _try_lead(self) -> bool:
        """Become the leader, unless another caller leads; return whether it did."""
        # Checked first: gevent switches greenlets if it does not get a lock.
        return not self._leading.locked() and self._leading.acquire(blocking=False)

    def _lead(self, reports: PendingReports, timeout: float) -> None:
        """Wait once for the socket; wake callers whose reports are complete."""
        try:
            # The last leader may have taken the notification of these reports.
            if not reports.is_complete:
                self._notifier.wait(timeout)
            while self._completed:
                self._completed.popleft().wake()
        finally:
            self._leading.release()

    def _pass_lead(self) -> None:
        """Wake the caller that has waited longest, to become the leader."""
        if self._closed and self.is_idle:
            self._notifier.close()
        if self._leading.locked():
            return
        # Meanwhile other threads may change the dictionary.
        with contextlib.suppress(StopIteration, RuntimeError):
            next(iter(self._waiting)).wake()


def create_timeout_error() -> PublishTimeout:
    """Return the error for a record that the broker did not confirm in time."""
    return PublishTimeout(
        "Kafka did not confirm the record in time. It may have taken it or not."
    )
