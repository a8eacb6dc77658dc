"""flask_qconsume for `benchmarks.growth`, measured once all consumers consume.

A run ends with a clean stop, so that the next run can drain the rest of the queue.
"""

from __future__ import annotations

import statistics
import threading
import time
import typing as t
from collections.abc import Sequence

from ..job import Job
from ..tally import Tally
from ..tally import cpu
from ..tally import memory
from ..tally import tell
from . import us

TITLE = "flask_qconsume, as work grows"
BROKERS = us.BROKERS

#: Most seconds of a start, with hundreds of connections.
_START = 120.0

#: Seconds to wait after the start, until its work is done.
_SETTLED = 1.0

fill = us.fill
left = us.left


def first(job: Job) -> None:
    """Handle the job's number of messages, print the figures and stop."""
    from gevent import monkey

    monkey.patch_all()
    _run(job, _Gated(job))


def windows(job: Job) -> None:
    """Handle all messages; print the figures of the beginning and of the end."""
    from gevent import monkey

    monkey.patch_all()
    _run(job, _Windows(job))


def _run(job: Job, tally: _Gated | _Windows) -> None:
    from flask_qconsume.running.gc_tuning import collect_less_often
    from flask_qconsume.running.worker import Worker

    app = us.app_of(job, tally)
    collect_less_often()  # As "flask qconsume run" does.
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
    """A tally whose messages wait until the gate is open."""

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
    """Notes the clocks and the memory from window to window of a long run.

    At either end the median of three windows counts: a host that is shared gives one
    half or twice the time of the next one.
    """

    def __init__(self, job: Job) -> None:
        self.gate = threading.Event()
        self.over = threading.Event()
        self._size = job.handled
        self._last = job.count
        self._notes: list[_Note] = []
        self._done = 0

    def one(self) -> None:
        if not self.gate.is_set():
            self.gate.wait()
        self._done += 1
        if self._done % self._size == 0:
            self._notes.append(_Note(time.perf_counter(), cpu(), memory()))
        if self._done == self._last:
            self._end()

    def _end(self) -> None:
        # The first window has the start in it.
        windows = [
            _figures(*pair, self._size)
            for pair in zip(self._notes, self._notes[1:], strict=False)
        ]
        tell({"first": _median(windows[:3]), "last": _median(windows[-3:])})
        self.over.set()


class _Note(t.NamedTuple):
    """Readings of the clocks."""

    clock: float
    cpu: float
    memory: float


def _figures(begun: _Note, ended: _Note, messages: int) -> dict[str, float]:
    return {
        "rate": messages / (ended.clock - begun.clock),
        "cpu": (ended.cpu - begun.cpu) / messages * 1e6,
        "memory": ended.memory,
    }


def _median(windows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        name: statistics.median(each[name] for each in windows) for name in windows[0]
    }
