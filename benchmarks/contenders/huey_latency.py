"""Huey's consumer on SQLite for `benchmarks.latency`: prints how late its tasks are.

It looks for tasks at intervals, which grow from 0.1 s.
"""

from __future__ import annotations

import json
import typing as t

from .. import plain
from ..job import Job
from ..stamps import Stamps
from ..stamps import paced
from ..tally import tell

TITLE = "Huey, greenlets"
BROKERS = ("sqlite",)


def declare(job: Job) -> None:
    """Create its tables."""
    _app(job, None)


def _app(job: Job, stamps: Stamps | None) -> tuple[t.Any, t.Any]:
    from huey import SqliteHuey

    huey = SqliteHuey(job.queue, filename=plain.sqlite_file(job), results=False)

    @huey.task(name="handle")
    def handle(body: t.Any) -> None:
        if stamps is not None:
            stamps.one(body)

    return huey, handle


def listen(job: Job) -> None:
    """Print a line once consuming begins, and consume until killed."""
    from gevent import monkey

    monkey.patch_all()
    huey, _ = _app(job, Stamps(job))
    # Each worker looks for tasks by itself, and a hundred of them look all the time.
    consumer = huey.create_consumer(workers=10, worker_type="greenlet", periodic=False)
    tell({"listens": True})
    consumer.run()


def pace(job: Job) -> None:
    """Publish at an even pace."""
    _, handle = _app(job, None)
    paced(job, job.pace, lambda body: handle(json.loads(body)))
