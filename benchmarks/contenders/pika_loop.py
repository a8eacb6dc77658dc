"""pika's blocking connection in a bare loop."""

from __future__ import annotations

import json
import time
import typing as t

from ..job import BODY
from ..job import Job
from ..tally import Tally

TITLE = "pika, bare loop"
BROKERS = ("rabbitmq", "rabbitmq-quorum")


def drain(job: Job) -> None:
    tally = Tally(job)
    channel = _channel(job)

    def handle(channel: t.Any, method: t.Any, properties: t.Any, body: bytes) -> None:
        json.loads(body)
        if job.work:
            time.sleep(job.work)
        channel.basic_ack(method.delivery_tag)
        tally.one()

    channel.basic_qos(prefetch_count=job.prefetch)
    channel.basic_consume(job.queue, handle)
    channel.start_consuming()


def publish(job: Job) -> None:
    import pika

    channel = _channel(job)
    quorum = {"x-queue-type": "quorum"} if job.broker == "rabbitmq-quorum" else {}
    channel.queue_declare(job.queue, durable=True, arguments=quorum)
    channel.confirm_delivery()
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    tally = Tally(job)
    for _ in range(job.count):
        channel.basic_publish("", job.queue, BODY, properties)
        tally.one()


def _channel(job: Job) -> t.Any:
    import pika

    return pika.BlockingConnection(pika.URLParameters(job.url)).channel()
