"""Who waits for what a producer reports: many at once, woken by few.

To be woken from a native thread costs a socket's round through the hub. Of all who wait
in one place one listens for that, therefore, and passes on to the others what is
theirs, by locks, which are cheap. Knows no client of Kafka's.
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
    """What was sent by one call, and what is reported of it."""

    def __init__(self, size: int, ear: ReportListener) -> None:
        self._errors: list[Exception | None] = [_NOT_REPORTED] * size
        self._ear = ear
        self._reported = 0
        self._expected = size
        self._waited_for = False
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def errors(self) -> list[Exception | None]:
        """For each record ``None``, or why it did not arrive; late ones by now."""
        # Not one exception for several: each may be raised somewhere.
        return [late() if e is _NOT_REPORTED else e for e in self._errors]

    @property
    def complete(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self._reported >= self._expected

    def report(self, index: int, error: Exception | None) -> None:
        """RecordNote what became of one. For any thread, native ones too."""
        self._errors[index] = error
        self._reported += 1
        if self._waited_for and self.complete:
            self._ear.hear(self)

    def failed(self, index: int, error: Exception) -> None:
        """RecordNote that one was never given to the client."""
        self._errors[index] = error
        self._expected -= 1

    def wait(self, deadline: float) -> None:
        """Wait for all reports, or until :func:`time.monotonic` is at the deadline."""
        # Seen by the other thread before it is looked at what that has done so far.
        self._waited_for = True
        if not self.complete:
            self._ear.wait(self, deadline)

    def sleep(self, timeout: float) -> None:
        """Wait until :meth:`wake`; what came before counts."""
        self._asleep.acquire(timeout=timeout)

    def wake(self) -> None:
        """End a sleep. From the same hub, or from any thread where there is none."""
        with contextlib.suppress(RuntimeError):  # It was told already.
            self._asleep.release()


class ReportListener:
    """Wakes those who wait in one place: on one hub, or in a process without any."""

    def __init__(self) -> None:
        self._notifier = ThreadNotifier()
        self._listening = threading.Lock()
        #: Batches by their age; a dictionary, for a set has no first one.
        self._waiting: dict[PendingReports, None] = {}
        self._heard: deque[PendingReports] = deque()
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def hear(self, batch: PendingReports) -> None:
        """A batch is complete. For any thread, native ones too."""
        self._heard.append(batch)
        self._notifier.notify()

    def wait(self, batch: PendingReports, deadline: float) -> None:
        """Wait until a batch is complete, or time is over."""
        self._waiting[batch] = None
        try:
            while not batch.complete and (left := deadline - time.monotonic()) > 0:
                if self._begin():
                    self._listen(batch, left)
                else:
                    batch.sleep(left)
        finally:
            del self._waiting[batch]
            self._hand_on()

    def close(self) -> None:
        """Close the notifier once nobody waits."""
        self._closed = True
        if self.idle:
            self._notifier.close()

    def _begin(self) -> bool:
        """Become the one who listens, if there is none."""
        # Looked at first: gevent goes round the hub where it does not get a lock.
        return not self._listening.locked() and self._listening.acquire(blocking=False)

    def _listen(self, batch: PendingReports, timeout: float) -> None:
        try:
            # Who listened before may have heard what is ours, and nobody rings again.
            if not batch.complete:
                self._notifier.wait(timeout)
            while self._heard:
                self._heard.popleft().wake()
        finally:
            self._listening.release()

    def _hand_on(self) -> None:
        """See to it that somebody listens, if anybody waits."""
        if self._closed and self.idle:
            self._notifier.close()
        if self._listening.locked():
            return
        # Other threads come and go meanwhile, where there are any.
        with contextlib.suppress(StopIteration, RuntimeError):
            next(iter(self._waiting)).wake()


def late() -> PublishTimeout:
    """The error for a record of which nothing was reported in time."""
    return PublishTimeout(
        "Kafka did not confirm the record in time. It may have taken it or not."
    )
