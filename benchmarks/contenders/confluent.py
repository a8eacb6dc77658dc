"""confluent-kafka in a bare loop, committing after each batch."""

from __future__ import annotations

import json
import time

from .. import plain
from ..job import BODY
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


def publish(job: Job) -> None:
    """Publish with at most a hundred records that not all replicas have confirmed."""
    from confluent_kafka import Producer

    plain.kafka_topic(job)
    producer = Producer(
        {"bootstrap.servers": plain.kafka_servers(job), "enable.idempotence": True}
    )
    tally = Tally(job)
    unconfirmed = 0

    def confirmed(error: object, record: object) -> None:
        nonlocal unconfirmed
        if error is not None:
            raise RuntimeError(error)
        unconfirmed -= 1
        tally.one()

    for _ in range(job.count):
        producer.produce(job.queue, BODY, on_delivery=confirmed)
        unconfirmed += 1
        while unconfirmed >= job.concurrency:
            producer.poll(1.0)
    producer.flush(30)
