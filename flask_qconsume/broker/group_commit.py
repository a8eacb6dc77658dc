"""Group commit: one caller sends the batches of all callers that are waiting.

A round trip takes as long for a hundred messages as for one. So callers that submit a
batch while another batch is being sent wait. Then one of them, the *leader*, sends the
batches of all in one round trip.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence

#: Limits a group of batches; a larger batch is sent alone.
_MAX_MESSAGES_PER_GROUP = 200

#: Function that sends all of these batches.
Send = Callable[[Sequence["CallerBatch"]], None]


class CallerBatch:
    """The messages or commands that one caller wants to send.

    :param size: The number of messages or commands in the batch.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        #: Whether a leader has taken the batch, and whether the leader has finished.
        self.taken = self.served = False
        #: Whether the broker may have executed a part of the batch without an answer.
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
    """Sends the batches of several callers in one round trip: group commit.

    :param leaders: The number of callers that may lead at the same time.
    """

    def __init__(self, leaders: int) -> None:
        self._leaders = [threading.Lock() for _ in range(leaders)]
        self._waiting_batches: dict[CallerBatch, None] = {}
        #: Batches expected in the next group: as many as in the last one, and one
        #: fewer after each group.
        self._expected = 0

    def submit(self, batch: CallerBatch, send: Send, deadline: float) -> None:
        """Wait until a batch is sent, either by this caller or by another caller.

        :param send: Function that sends batches. A caller that leads passes the batches
            of several callers to ``send``.
        :param deadline: Time to stop waiting, by :func:`time.monotonic`.
        """
        batch.taken = batch.served = False
        self._waiting_batches[batch] = None
        try:
            while (
                not batch.served and (seconds_left := deadline - time.monotonic()) > 0
            ):
                # A caller does not lead while another caller sends its batch.
                leader = None if batch.taken else self._try_to_lead()
                if leader is None:
                    batch.sleep(seconds_left)
                else:
                    self._lead(leader, send)
        finally:
            self._waiting_batches.pop(batch, None)
            batch.doubtful = batch.doubtful or (batch.taken and not batch.served)
            self._wake_next_leader()

    def _try_to_lead(self) -> threading.Lock | None:
        """Acquire a leader's lock and return it; ``None`` if all locks are taken."""
        for leader in self._leaders:
            # gevent switches to its event loop if a lock is taken, so check first.
            if not leader.locked() and leader.acquire(blocking=False):
                return leader
        return None

    def _lead(self, leader: threading.Lock, send: Send) -> None:
        group: list[CallerBatch] = []
        try:
            if self._expected > 0 or len(self._waiting_batches) > 1:
                # Let callers that were woken together with this one submit their next
                # batch. With a quick broker, nothing else gives them the chance.
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
        """Remove and return the oldest waiting batches, up to a group's size."""
        group: list[CallerBatch] = []
        room = _MAX_MESSAGES_PER_GROUP
        for batch in list(self._waiting_batches):
            if group and batch.size > room:
                break
            if self._waiting_batches.pop(batch, batch) is None:
                batch.taken = True
                room -= batch.size
                group.append(batch)
        return group

    def _wake_next_leader(self) -> None:
        """Wake a waiting caller to become a leader, unless there are enough."""
        if self._waiting_batches and not all(
            leader.locked() for leader in self._leaders
        ):
            for batch in list(self._waiting_batches)[:1]:
                batch.wake()
