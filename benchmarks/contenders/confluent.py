"""confluent-kafka in a bare loop, committing after each batch."""

from __future__ import annotations

import json
import time

from .. import plain
from ..job import Job
from ..tally import Tally

TITLE = "confluent-kafka, bare loop in batches"
BROKERS = ("kafka",)


def drain(job: Job) -> None:
    from confluent_kafka import Consumer

    tally = Tally(job)
    consumer = Consumer(
        {
            "bootstrap.servers": plain.kafka_servers(job),
            "group.id": job.queue,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([job.queue])
    while True:
        found = consumer.consume(job.prefetch, 1.0)
        messages = [message for message in found if not message.error()]
        for message in messages:
            json.loads(message.value())
            if job.work:
                time.sleep(job.work)
            tally.one()
        if messages:
            consumer.commit(asynchronous=True)
