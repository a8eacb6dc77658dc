"""Group commit: one caller sends the batches of all callers that are waiting.

A round trip takes as long for a hundred messages as for one. So callers that submit a
batch while another batch is being sent wait. Then one of them, the *leader*, sends the
batches of all in one round trip.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ...errors import BrokerError
from ...errors import BrokerUnavailable
from .errors import copy_error
from .scripts import Call

#: Limits a group of batches; a larger batch is sent alone.
_MAX_MESSAGES_PER_GROUP = 200

#: Function that sends all of these batches.
Send = Callable[[Sequence["CallerBatch"]], None]


class CallerBatch:
    """The messages or scripts of one caller, which may be submitted several times.

    :param size: The number of messages or scripts in the batch.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        #: Whether a leader has taken the batch, and whether its sending has ended.
        self.taken = self.served = False
        #: Whether Redis may have executed a part of the batch without an answer.
        self.doubtful = False
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def sleep(self, timeout: float) -> None:
        """Wait until :meth:`wake` is called; return at once if it was called before."""
        self._asleep.acquire(timeout=timeout)

    def wake(self) -> None:
        """End the current or the next :meth:`sleep`."""
        with contextlib.suppress(RuntimeError):  # The caller is awake.
            self._asleep.release()


class GroupCommit:
    """Groups the batches of callers in one gevent event loop, or in one process.

    :param leaders: The number of callers that may send at the same time.
    """

    def __init__(self, leaders: int) -> None:
        self._leaders = [threading.Lock() for _ in range(leaders)]
        self._waiting: dict[CallerBatch, None] = {}
        #: Batches expected in the next group: as many as in the last one, and one
        #: fewer after each group.
        self._expected = 0

    def submit(self, batch: CallerBatch, send: Send, deadline: float) -> None:
        """Have this caller or another one send a batch, and wait until it is sent.

        :param send: Sends batches; called with this one and the waiting ones if no
            other caller leads.
        :param deadline: When to stop waiting, on :func:`time.monotonic`'s clock.
        """
        batch.taken = batch.served = False
        self._waiting[batch] = None
        try:
            while not batch.served and (left := deadline - time.monotonic()) > 0:
                # A caller waits, and does not lead, while another one sends its batch.
                leader = None if batch.taken else self._try_to_lead()
                if leader is None:
                    batch.sleep(left)
                else:
                    self._lead(leader, send)
        finally:
            self._waiting.pop(batch, None)
            batch.doubtful = batch.doubtful or (batch.taken and not batch.served)
            self._wake_next_leader()

    def _try_to_lead(self) -> threading.Lock | None:
        """Acquire and return a leader's lock, or return ``None`` if none is free."""
        for leader in self._leaders:
            # gevent switches to its event loop if a lock is taken, so check first.
            if not leader.locked() and leader.acquire(blocking=False):
                return leader
        return None

    def _lead(self, leader: threading.Lock, send: Send) -> None:
        group: list[CallerBatch] = []
        try:
            if self._expected > 0 or len(self._waiting) > 1:
                # Let callers that were woken together with this one submit their next
                # batch. If Redis answers quickly, nothing else gives them the chance.
                time.sleep(0)
            group = self._take_group()
            self._expected = max(self._expected, len(group)) - 1
            if group:
                send(group)
        except BaseException:
            # An interrupted leader may have sent some of the batches.
            for batch in group:
                batch.doubtful = True
            raise
        finally:
            leader.release()
            for batch in group:
                batch.served = True
                batch.wake()

    def _take_group(self) -> list[CallerBatch]:
        """Remove and return the oldest waiting batches, up to the limit of a group."""
        group: list[CallerBatch] = []
        room = _MAX_MESSAGES_PER_GROUP
        for batch in list(self._waiting):
            if group and batch.size > room:
                break
            if self._waiting.pop(batch, batch) is None:
                batch.taken = True
                room -= batch.size
                group.append(batch)
        return group

    def _wake_next_leader(self) -> None:
        """Wake one waiting caller to lead, unless enough callers lead already."""
        if self._waiting and not all(leader.locked() for leader in self._leaders):
            for batch in list(self._waiting)[:1]:
                batch.wake()


#: Function that runs scripts in one round trip.
Run = Callable[[Sequence[Call]], list[t.Any]]


class _ScriptBatch(CallerBatch):
    """The scripts of one link, and later their answers or the error."""

    def __init__(self, calls: Sequence[Call]) -> None:
        super().__init__(len(calls))
        self.calls = calls
        self.answers: Sequence[t.Any] | None = None
        self.error: BrokerError | None = None

    def result(self) -> Sequence[t.Any]:
        if self.error is not None:
            raise self.error
        if self.answers is None:
            raise BrokerUnavailable("Redis did not answer to a heartbeat in time.")
        return self.answers


class GroupedScripts:
    """Runs the scripts of several links in one round trip.

    The links of a process start together, so they send heartbeats at the same time.
    Without this class, each link would need a further connection for its heartbeats.
    """

    def __init__(self) -> None:
        self._commit = GroupCommit(leaders=1)

    def run(self, calls: Sequence[Call], run: Run, timeout: float) -> Sequence[t.Any]:
        """Run scripts together with those of other links.

        :param timeout: Seconds to wait for the round trips of other links.
        :returns: The answers, which include errors of single scripts.
        :raises BrokerError: if the connection is lost.
        """
        batch = _ScriptBatch(calls)

        def send(batches: Sequence[CallerBatch]) -> None:
            _run_all(t.cast("Sequence[_ScriptBatch]", batches), run)

        self._commit.submit(batch, send, time.monotonic() + timeout)
        return batch.result()


def _run_all(batches: Sequence[_ScriptBatch], run: Run) -> None:
    try:
        answers = iter(run([call for batch in batches for call in batch.calls]))
    except BrokerError as error:
        for batch in batches:
            batch.error = copy_error(error)
        return
    for batch in batches:
        batch.answers = [next(answers) for _ in batch.calls]
