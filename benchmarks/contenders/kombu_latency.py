"""kombu's Consumer for `benchmarks.latency`: prints how late its messages are."""

from __future__ import annotations

import typing as t

from ..job import Job
from ..stamps import Stamps
from ..tally import tell

TITLE = "kombu, Consumer"
BROKERS = ("rabbitmq", "rabbitmq-quorum")


def listen(job: Job) -> None:
    """Print a line once consuming begins, and consume until killed."""
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
