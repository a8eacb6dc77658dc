"""kombu's Consumer over the transports of this package, without Flask or gevent."""

from __future__ import annotations

from ..job import Job
from .kombu_consumer import consume

TITLE = "kombu, Consumer, our transport"
BROKERS = ("rabbitmq", "rabbitmq-quorum", "redis-streams")


def drain(job: Job) -> None:
    if job.broker == "redis-streams":
        _drain_streams(job)
    else:
        _drain_rabbitmq(job)


def _drain_rabbitmq(job: Job) -> None:
    from flask_qconsume.brokers.rabbitmq.amqp.transport import Transport

    consume(job, job.url, transport=Transport)


def _drain_streams(job: Job) -> None:
    from flask_qconsume.transports import redis_streams

    assert redis_streams.Transport  # From here on kombu knows the scheme.
    consume(job, job.url.replace("redis:", "redis-streams:"))
