"""kombu's Consumer, telling how late its messages are: for `benchmarks.latency`."""

from __future__ import annotations

import typing as t

from ..job import Job
from ..stamps import Stamps
from ..tally import tell

TITLE = "kombu, Consumer, latency"
BROKERS = ("rabbitmq", "rabbitmq-quorum")


def listen(job: Job) -> None:
    """Consume, until killed; say first when it has begun."""
    import kombu

    stamps = Stamps(job)
    connection = kombu.Connection(job.url)
    queue = kombu.Queue(job.queue, no_declare=True)

    def handle(body: t.Any, message: t.Any) -> None:
        stamps.one(body)
        message.ack()

    consumer = kombu.Consumer(
        connection.channel(), [queue], callbacks=[handle], prefetch_count=job.prefetch
    )
    consumer.consume()
    tell({"listens": True})
    while True:
        connection.drain_events()
