"""What links ask Redis when their hearts beat: one of them asks for all who do so now.

The links of a process started together, so they beat together. If each asked for
itself, each would need a connection for it, which would stay open.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ...errors import BrokerError
from ...errors import BrokerUnavailable
from .errors import like
from .group_commit import Meeting
from .group_commit import Turn
from .scripts import Call

#: Runs scripts in one round trip.
Run = Callable[[Sequence[Call]], list[t.Any]]


class _Beat(Turn):
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


class Beats:
    """For one hub of gevent's, or a process without any."""

    def __init__(self) -> None:
        self._meeting = Meeting(leaders=1)

    def run(self, calls: Sequence[Call], run: Run, timeout: float) -> Sequence[t.Any]:
        """Run scripts together with those of others; an error of Redis' is an answer.

        :param timeout: Seconds that others may take who are before us.
        :raises BrokerError: if the connection is lost.
        """
        beat = _Beat(calls)

        def lead(beats: Sequence[Turn]) -> None:
            _run_all(t.cast("Sequence[_Beat]", beats), run)

        self._meeting.attend(beat, lead, time.monotonic() + timeout)
        return beat.result()


def _run_all(beats: Sequence[_Beat], run: Run) -> None:
    try:
        answers = iter(run([call for beat in beats for call in beat.calls]))
    except BrokerError as error:
        for beat in beats:
            beat.error = like(error)
        return
    for beat in beats:
        beat.answers = [next(answers) for _ in beat.calls]
