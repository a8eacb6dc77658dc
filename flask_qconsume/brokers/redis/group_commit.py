"""Group commit: one caller sends the batches of all callers that are waiting.

A round trip costs the same for one message as for a hundred. So batches that arrive
while another one is being sent wait, and go together in the next round trip.
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

#: A larger batch is sent alone.
_MAX_MESSAGES_PER_GROUP = 200

#: Sends all of these batches.
Send = Callable[[Sequence["CallerBatch"]], None]


class CallerBatch:
    """The messages or scripts of one caller; submitted again if sending has failed.

    :param size: The number of messages in it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        #: Whether a leader has taken the batch, and whether its sending has ended.
        self.taken = self.served = False
        #: Whether Redis may have executed a part of it without an answer.
        self.doubtful = False
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def sleep(self, timeout: float) -> None:
        """Wait until :meth:`wake` is called; an earlier call counts too."""
        self._asleep.acquire(timeout=timeout)

    def wake(self) -> None:
        """End the present or the next :meth:`sleep`."""
        with contextlib.suppress(RuntimeError):  # It has been woken already.
            self._asleep.release()


class GroupCommit:
    """Leaders and followers of one gevent hub, or of a process without hubs.

    :param leaders: How many callers may send at the same time.
    """

    def __init__(self, leaders: int) -> None:
        self._leaders = [threading.Lock() for _ in range(leaders)]
        self._waiting: dict[CallerBatch, None] = {}
        #: Batches expected in the next group: as many as in the last one, and one
        #: fewer after each group.
        self._expected = 0

    def submit(self, batch: CallerBatch, send: Send, deadline: float) -> None:
        """Have a batch sent, by another caller or by this one.

        :param send: Sends batches; called with this one and the waiting ones if no
            other caller leads.
        :param deadline: When to stop waiting, on :func:`time.monotonic`'s clock.
        """
        batch.taken = batch.served = False
        self._waiting[batch] = None
        try:
            while not batch.served and (left := deadline - time.monotonic()) > 0:
                # A caller whose batch is being sent has nothing to lead for.
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
            # gevent switches to the hub if a lock is taken, so look at it first.
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
        """Remove and return the batches that have waited longest, for one leader."""
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
        """Wake one waiting caller, if fewer callers lead than may."""
        if self._waiting and not all(leader.locked() for leader in self._leaders):
            for batch in list(self._waiting)[:1]:
                batch.wake()


#: Runs scripts in one round trip.
Run = Callable[[Sequence[Call]], list[t.Any]]


class _ScriptBatch(CallerBatch):
    """The scripts of one link, and their answers or the error."""

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
    """Scripts of several links, run in one round trip.

    The links of a process start together, so their heartbeats fall together. Without
    this class, each link would need a connection of its own for them.
    """

    def __init__(self) -> None:
        self._commit = GroupCommit(leaders=1)

    def run(self, calls: Sequence[Call], run: Run, timeout: float) -> Sequence[t.Any]:
        """Run scripts together with those of other links.

        :param timeout: Seconds to wait for the round trips of other links.
        :returns: The answers; an error with which Redis answered is one of them.
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
