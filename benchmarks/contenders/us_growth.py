"""flask_qconsume, for `benchmarks.growth`: counted from when all consumers consume.

Its runs end by a clean stop, so that a queue with more messages can be drained again.
"""

from __future__ import annotations

import threading
import time
import typing as t

from ..job import Job
from ..tally import Tally
from ..tally import cpu
from ..tally import memory
from ..tally import tell
from . import us

TITLE = "flask_qconsume, as work grows"
BROKERS = us.BROKERS

#: Seconds that a start may take, with hundreds of connections.
_START = 120.0

#: Seconds after that, for whatever the start left behind.
_SETTLED = 1.0

fill = us.fill
left = us.left


def first(job: Job) -> None:
    """Handle the first so many, print the figures and stop."""
    from gevent import monkey

    monkey.patch_all()
    _run(job, _Gated(job))


def windows(job: Job) -> None:
    """Handle all; print the figures of the first so many, and of the last."""
    from gevent import monkey

    monkey.patch_all()
    _run(job, _Windows(job))


def _run(job: Job, tally: _Gated | _Windows) -> None:
    from flask_qconsume.running.garbage import look_less_often
    from flask_qconsume.running.worker import Worker

    app = us.app_of(job, tally)
    look_less_often()  # As "flask qconsume run" does.
    if job.broker == "memory":
        us.published(app, job)
    worker = Worker(app)
    worker.start()
    for subscription in worker.subscriptions:
        if not subscription.consuming.wait(_START):
            raise SystemExit(f"{subscription.name} does not consume.")
    time.sleep(_SETTLED)
    tally.gate.set()
    tally.over.wait()
    worker.stop()


class _Gated(Tally):
    """Lets nothing pass before the gate is open."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.gate = threading.Event()
        self.over = threading.Event()

    def one(self) -> None:
        if not self.gate.is_set():
            self.gate.wait()
        super().one()

    def end(self, messages: int) -> None:
        super().end(messages)
        self.over.set()


class _Windows:
    """Notes the clocks and the memory at both ends of the first and the last ones."""

    def __init__(self, job: Job) -> None:
        self.gate = threading.Event()
        self.over = threading.Event()
        self._size = job.handled
        self._ends = (job.warm_up, self._size, job.count - self._size, job.count)
        self._notes: list[tuple[float, float, float]] = []
        self._done = 0

    def one(self) -> None:
        if not self.gate.is_set():
            self.gate.wait()
        self._done += 1
        if self._done in self._ends:
            self._notes.append((time.perf_counter(), cpu(), memory()))
        if self._done == self._ends[-1]:
            self._end()

    def _end(self) -> None:
        warm_up, size, *_ = self._ends
        begun, early, before, late = self._notes
        tell(
            {
                "first": _figures(begun, early, size - warm_up),
                "last": _figures(before, late, size),
            }
        )
        self.over.set()


def _figures(
    begun: t.Sequence[float], ended: t.Sequence[float], messages: int
) -> dict[str, float]:
    return {
        "rate": messages / (ended[0] - begun[0]),
        "cpu": (ended[1] - begun[1]) / messages * 1e6,
        "memory": ended[2],
    }
