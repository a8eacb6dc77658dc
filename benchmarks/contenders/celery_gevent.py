"""Celery's worker with its gevent pool, late acknowledgements, no results."""

from __future__ import annotations

import json
import time
import typing as t

from .. import plain
from ..job import BODY
from ..job import Job
from ..tally import Tally

TITLE = "Celery, gevent"
BROKERS = ("rabbitmq", "rabbitmq-quorum", "redis")


def drain(job: Job) -> None:
    from gevent import monkey

    monkey.patch_all()
    tally = Tally(job)
    app = _app(job)

    @app.task(name="handle", acks_late=True, ignore_result=True)
    def handle(order: t.Any) -> None:
        if job.work:
            time.sleep(job.work)
        tally.one()

    app.worker_main(
        [
            "worker",
            "--pool=gevent",
            f"--concurrency={job.concurrency}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=ERROR",
        ]
    )


def _app(job: Job) -> t.Any:
    from celery import Celery
    from kombu import Queue

    app = Celery(broker=job.url)
    quorum = {"x-queue-type": "quorum"} if job.broker == "rabbitmq-quorum" else None
    app.conf.update(
        task_default_queue=job.queue,
        task_queues=[Queue(job.queue, routing_key=job.queue, queue_arguments=quorum)],
        task_default_exchange="",
        task_default_routing_key=job.queue,
        worker_prefetch_multiplier=max(1, job.prefetch // job.concurrency),
        worker_detect_quorum_queues=True,
        worker_enable_remote_control=False,
        # With it, Celery 5.7 under gevent waits 0.1 s between two reads.
        broker_heartbeat=0,
        broker_connection_retry_on_startup=True,
    )
    return app


def fill(job: Job) -> None:
    app = _app(job)
    with app.connection_for_write() as connection:
        producer = connection.Producer()
        for number in range(job.count):
            app.send_task(
                "handle",
                args=[json.loads(BODY)],
                task_id=str(number),
                producer=producer,
                ignore_result=True,
            )


def publish(job: Job) -> None:
    """Publish from a hundred greenlets, each of which waits for its confirmations."""
    from gevent import monkey

    monkey.patch_all()
    import gevent

    app = _app(job)
    app.conf.broker_transport_options = {"confirm_publish": True}
    order = json.loads(BODY)
    tally = Tally(job)

    def some() -> None:
        for _ in range(job.count // job.concurrency):
            app.send_task("handle", args=[order], ignore_result=True)
            tally.one()

    gevent.joinall([gevent.spawn(some) for _ in range(job.concurrency)])


left = plain.left
