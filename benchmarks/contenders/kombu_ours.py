"""kombu's Consumer over the transports of this package, without Flask or gevent."""

from __future__ import annotations

from ..job import Job
from .kombu_consumer import consume

TITLE = "kombu, Consumer, our transport"
BROKERS = ("rabbitmq", "rabbitmq-quorum")


def drain(job: Job) -> None:
    from flask_qconsume.transports.amqp import Transport

    consume(job, job.url, transport=Transport)
