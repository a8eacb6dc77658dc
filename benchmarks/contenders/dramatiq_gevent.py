"""Dramatiq's worker, its threads being greenlets."""

from __future__ import annotations

import json
import time
import typing as t

from .. import plain
from ..job import BODY
from ..job import Job
from ..tally import Tally

TITLE = "Dramatiq, gevent"
BROKERS = ("rabbitmq", "redis")


def drain(job: Job) -> None:
    from gevent import monkey

    monkey.patch_all()
    from dramatiq import Worker

    tally = Tally(job)
    broker = _broker(job)
    _actor(job, broker, tally)
    worker = Worker(broker, worker_threads=job.concurrency)
    worker.start()
    worker.join()
    while True:
        time.sleep(1)


def _broker(job: Job, **options: t.Any) -> t.Any:
    import os

    # Read when the module of its worker is imported.
    os.environ["dramatiq_queue_prefetch"] = str(job.prefetch)  # noqa: SIM112
    import dramatiq

    if job.broker == "redis":
        from dramatiq.brokers.redis import RedisBroker

        broker: t.Any = RedisBroker(url=job.url)
    else:
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        broker = RabbitmqBroker(url=job.url, **options)
    dramatiq.set_broker(broker)
    return broker


def _actor(job: Job, broker: t.Any, tally: Tally | None) -> t.Any:
    import dramatiq

    @dramatiq.actor(queue_name=job.queue, broker=broker, actor_name="handle")
    def handle(order: t.Any) -> None:
        if job.work:
            time.sleep(job.work)
        if tally is not None:
            tally.one()

    return handle


def fill(job: Job) -> None:
    broker = _broker(job)
    actor = _actor(job, broker, None)
    for _ in range(job.count):
        actor.send(json.loads(BODY))


def publish(job: Job) -> None:
    """Publish from a hundred greenlets, each of which waits for its confirmations."""
    from gevent import monkey

    monkey.patch_all()
    import gevent

    actor = _actor(job, _broker(job, confirm_delivery=True), None)
    order = json.loads(BODY)
    tally = Tally(job)

    def some() -> None:
        for _ in range(job.count // job.concurrency):
            actor.send(order)
            tally.one()

    gevent.joinall([gevent.spawn(some) for _ in range(job.concurrency)])


def left(job: Job) -> int:
    if job.broker != "redis":
        return plain.left(job)
    client = plain.redis_client(job)
    acks = client.keys("dramatiq:__acks__.*")
    return int(
        client.llen(f"dramatiq:{job.queue}") + sum(client.scard(key) for key in acks)
    )
