"""Huey's consumer with greenlets. It does not acknowledge: crashes lose messages."""

from __future__ import annotations

import json
import time
import typing as t

from .. import plain
from ..job import BODY
from ..job import Job
from ..tally import Tally

TITLE = "Huey, greenlets (no acknowledgement)"
BROKERS = ("redis", "sqlite")


def drain(job: Job) -> None:
    from gevent import monkey

    monkey.patch_all()
    tally = Tally(job)
    huey, _ = _app(job, tally)
    consumer = huey.create_consumer(
        workers=job.concurrency, worker_type="greenlet", periodic=False
    )
    consumer.run()


def _app(job: Job, tally: Tally | None) -> tuple[t.Any, t.Any]:
    import huey as package

    if job.broker == "redis":
        huey: t.Any = package.RedisHuey(job.queue, url=job.url, results=False)
    else:
        file = plain.sqlite_file(job)
        huey = package.SqliteHuey(job.queue, filename=file, results=False)

    @huey.task(name="handle")
    def handle(order: t.Any) -> None:
        if job.work:
            time.sleep(job.work)
        if tally is not None:
            tally.one()

    return huey, handle


def fill(job: Job) -> None:
    _, handle = _app(job, None)
    order = json.loads(BODY)
    for _ in range(job.count):
        handle(order)


def publish(job: Job) -> None:
    """Publish one task after the other; it cannot do more at once on SQLite."""
    tally = Tally(job)
    _, handle = _app(job, None)
    order = json.loads(BODY)
    for _ in range(job.count):
        handle(order)
        tally.one()


def left(job: Job) -> int:
    if job.broker == "sqlite":
        return plain.sql_count(job, "task")
    return int(plain.redis_client(job).llen(f"huey.redis.{job.queue}"))
