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
BROKERS = ("redis",)


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
    from huey import RedisHuey

    huey = RedisHuey(job.queue, url=job.url, results=False)

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


def left(job: Job) -> int:
    return int(plain.redis_client(job).llen(f"huey.redis.{job.queue}"))
