"""Scripts of several queues' readers, sent to Redis in one round trip."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ...broker.group_commit import CallerBatch
from ...broker.group_commit import GroupCommit
from ...broker.publish_request import copy_error
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from .scripts import Call

#: Function that runs scripts in one round trip.
Run = Callable[[Sequence[Call]], list[t.Any]]


class _ScriptBatch(CallerBatch):
    """The scripts that one queue's reader wants to run, and their answers."""

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
    """Runs scripts for the readers of several queues in one round trip.

    The readers of a process start together, so their heartbeats are due together.
    Without this class, each reader would need a second connection for heartbeats.
    """

    def __init__(self) -> None:
        self._commit = GroupCommit(leaders=1)

    def run(self, calls: Sequence[Call], run: Run, timeout: float) -> Sequence[t.Any]:
        """Run one reader's scripts in one round trip with those of other readers.

        :param timeout: Seconds to wait, also for earlier round trips.
        :returns: For each script its answer, or the error if the script fails.
        :raises BrokerError: if the connection is lost, or the time is over.
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
