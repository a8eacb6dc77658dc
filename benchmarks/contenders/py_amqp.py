"""py-amqp in a bare loop, the library under kombu: each message acknowledged."""

from __future__ import annotations

import json
import time
import typing as t

from .. import plain
from ..job import Job
from ..tally import Tally

TITLE = "py-amqp, bare loop"
BROKERS = ("rabbitmq", "rabbitmq-quorum")


def drain(job: Job) -> None:
    tally = Tally(job)
    connection = plain.connected(job)
    channel = connection.channel()

    def handle(message: t.Any) -> None:
        json.loads(message.body)
        if job.work:
            time.sleep(job.work)
        channel.basic_ack(message.delivery_tag)
        tally.one()

    channel.basic_qos(0, job.prefetch, False)
    channel.basic_consume(job.queue, callback=handle)
    while True:
        connection.drain_events()


def publish(job: Job) -> None:
    import amqp

    from ..job import BODY

    connection = plain.connected(job)
    channel = connection.channel()
    plain.declare(channel, job, job.queue)
    channel.confirm_select()
    tally = Tally(job)
    for _ in range(job.count):
        message = amqp.Message(BODY, delivery_mode=2, content_type="application/json")
        channel.basic_publish_confirm(message, "", job.queue)
        tally.one()
