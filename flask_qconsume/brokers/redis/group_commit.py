"""Those who publish at the same time: one of them sends for all who wait.

A round trip costs the same for one message and for a hundred. So whoever comes while
somebody is sending waits for that to end, and goes with all the others who came
meanwhile. Knows neither messages nor Redis.
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

#: How many messages go together at the most; whoever comes with more goes alone.
_MOST = 200

#: Sends for all of these.
Lead = Callable[[Sequence["CallerBatch"]], None]


class CallerBatch:
    """One who waits until its messages were sent; once more if that failed.

    :param size: How many messages it has.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        #: Whether somebody has begun to send for it, and whether that has ended.
        self.taken = self.served = False
        #: Whether it is not known what became of something that was sent.
        self.doubtful = False
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def sleep(self, timeout: float) -> None:
        """Wait until :meth:`wake`; what came before counts."""
        self._asleep.acquire(timeout=timeout)

    def wake(self) -> None:
        """End a sleep, or the next one."""
        with contextlib.suppress(RuntimeError):  # It was told already.
            self._asleep.release()


class GroupCommit:
    """Where they meet: on one hub of gevent's, or in a process without any.

    :param leaders: How many may be sending at once.
    """

    def __init__(self, leaders: int) -> None:
        self._leaders = [threading.Lock() for _ in range(leaders)]
        self._waiting: dict[CallerBatch, None] = {}
        #: How many are expected to come: as many as went together, one fewer each time.
        self._crowd = 0

    def submit(self, turn: CallerBatch, lead: Lead, deadline: float) -> None:
        """Wait until somebody has sent for a turn, or do it; or until time is over.

        :param lead: Called where nobody else is sending, with this turn and others.
        """
        turn.taken = turn.served = False
        self._waiting[turn] = None
        try:
            while not turn.served and (left := deadline - time.monotonic()) > 0:
                # Who is being served has nothing to lead for.
                leader = None if turn.taken else self._free()
                if leader is None:
                    turn.sleep(left)
                else:
                    self._lead(leader, lead)
        finally:
            self._waiting.pop(turn, None)
            turn.doubtful = turn.doubtful or (turn.taken and not turn.served)
            self._hand_on()

    def _free(self) -> threading.Lock | None:
        """Begin to lead, if not enough others do."""
        for leader in self._leaders:
            # Looked at first: gevent goes round the hub where it does not get a lock.
            if not leader.locked() and leader.acquire(blocking=False):
                return leader
        return None

    def _lead(self, leader: threading.Lock, lead: Lead) -> None:
        group: list[CallerBatch] = []
        try:
            if self._crowd > 0 or len(self._waiting) > 1:
                # Others who were woken with us come as far as this; where Redis is
                # quick enough nothing else lets them.
                time.sleep(0)
            group = self._take()
            self._crowd = max(self._crowd, len(group)) - 1
            if group:
                lead(group)
        except BaseException:
            # Whoever is interrupted here may have sent what others wait for.
            for turn in group:
                turn.doubtful = True
            raise
        finally:
            leader.release()
            for turn in group:
                turn.served = True
                turn.wake()

    def _take(self) -> list[CallerBatch]:
        """Those who waited for longest. Each is given to one leader only."""
        group: list[CallerBatch] = []
        room = _MOST
        for turn in list(self._waiting):
            if group and turn.size > room:
                break
            if self._waiting.pop(turn, turn) is None:
                turn.taken = True
                room -= turn.size
                group.append(turn)
        return group

    def _hand_on(self) -> None:
        """See to it that somebody leads, if anybody waits."""
        if self._waiting and not all(leader.locked() for leader in self._leaders):
            for turn in list(self._waiting)[:1]:
                turn.wake()


#: Runs scripts in one round trip.
Run = Callable[[Sequence[Call]], list[t.Any]]


class _ScriptBatch(CallerBatch):
    """What one link asks, and what came of it."""

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
    """For one hub of gevent's, or a process without any."""

    def __init__(self) -> None:
        self._commit = GroupCommit(leaders=1)

    def run(self, calls: Sequence[Call], run: Run, timeout: float) -> Sequence[t.Any]:
        """Run scripts together with those of others; an error of Redis' is an answer.

        :param timeout: Seconds that others may take who are before us.
        :raises BrokerError: if the connection is lost.
        """
        beat = _ScriptBatch(calls)

        def lead(beats: Sequence[CallerBatch]) -> None:
            _run_all(t.cast("Sequence[_ScriptBatch]", beats), run)

        self._commit.submit(beat, lead, time.monotonic() + timeout)
        return beat.result()


def _run_all(beats: Sequence[_ScriptBatch], run: Run) -> None:
    try:
        answers = iter(run([call for beat in beats for call in beat.calls]))
    except BrokerError as error:
        for beat in beats:
            beat.error = copy_error(error)
        return
    for beat in beats:
        beat.answers = [next(answers) for _ in beat.calls]
