"""kombu's Consumer without gevent."""

from __future__ import annotations

import time
import typing as t

from .. import plain
from ..job import Job
from ..tally import Tally

TITLE = "kombu, Consumer"
BROKERS = ("rabbitmq", "rabbitmq-quorum", "redis")
TRANSPORT = ""


def drain(job: Job) -> None:
    consume(job, job.url)


def consume(job: Job, url: str, **options: t.Any) -> None:
    import kombu

    tally = Tally(job)
    connection = kombu.Connection(url, **options)
    channel = connection.channel()
    queue = kombu.Queue(job.queue, no_declare=not url.startswith("redis"))

    def handle(body: t.Any, message: t.Any) -> None:
        if job.work:
            time.sleep(job.work)
        message.ack()
        tally.one()

    consumer = kombu.Consumer(
        channel, [queue], callbacks=[handle], prefetch_count=job.prefetch
    )
    consumer.consume()
    while True:
        connection.drain_events()


fill = plain.fill
