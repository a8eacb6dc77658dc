"""kombu's Consumer on its SQLAlchemy transport, without gevent.

It marks a message when it fetches it and never deletes it: crashes lose messages.
"""

from __future__ import annotations

import json
import typing as t

from .. import plain
from ..job import BODY
from ..job import Job
from ..tally import Tally
from .kombu_consumer import consume

TITLE = "kombu, SQLAlchemy (no acknowledgement)"
BROKERS = ("postgresql", "sqlite")


def drain(job: Job) -> None:
    consume(job, _url(job))


def _url(job: Job) -> str:
    return "sqla+" + job.url.replace("postgresql:", "postgresql+psycopg:")


def fill(job: Job) -> None:
    publish(job, lambda: None)


def publish(job: Job, tell: t.Any = None) -> None:
    """Publish one message after the other; it cannot do more at once."""
    import kombu

    tell = tell or Tally(job).one
    order = json.loads(BODY)
    with kombu.Connection(_url(job)) as connection:
        producer = connection.Producer()
        declare = [kombu.Queue(job.queue)]
        for _ in range(job.count):
            producer.publish(order, routing_key=job.queue, declare=declare)
            tell()


def left(job: Job) -> int:
    return plain.sql_count(job, "kombu_message", "visible")
