"""py-amqp with at most a hundred messages unconfirmed: what the broker allows."""

from __future__ import annotations

from .. import plain
from ..job import BODY
from ..job import Job
from ..tally import Tally

TITLE = "py-amqp, a hundred unconfirmed"
BROKERS = ("rabbitmq", "rabbitmq-quorum")


def publish(job: Job) -> None:
    import amqp

    connection = plain.connected(job)
    channel = connection.channel()
    plain.declare(channel, job, job.queue)
    channel.confirm_select()
    unconfirmed: set[int] = set()
    tally = Tally(job)

    def confirmed(tag: int, multiple: bool) -> None:
        found = {each for each in unconfirmed if each <= tag} if multiple else {tag}
        unconfirmed.difference_update(found)
        for _ in found:
            tally.one()

    channel.events["basic_ack"].add(confirmed)
    for number in range(1, job.count + 1):
        message = amqp.Message(BODY, delivery_mode=2, content_type="application/json")
        unconfirmed.add(number)
        channel._basic_publish(message, "", job.queue)
        while len(unconfirmed) >= job.concurrency:
            connection.drain_events(timeout=30)
    while unconfirmed:
        connection.drain_events(timeout=30)
