"""flask_qconsume's ``publish_many``: 500 messages a call, confirmed when it returns."""

from __future__ import annotations

from ..job import BODY
from ..job import Job
from ..tally import Tally
from .us import JSON
from .us import app_of

TITLE = "flask_qconsume, publish_many"
BROKERS = (
    "rabbitmq",
    "rabbitmq-quorum",
    "redis",
    "redis-streams",
    "memory",
    "kafka",
    "postgresql",
    "sqlite",
)

_BATCH = 500


def publish(job: Job) -> None:
    publisher = app_of(job, None).extensions["qconsume"]
    tally = Tally(job)
    for _ in range(job.count // _BATCH):
        publisher.publish_many([(job.queue, BODY, JSON)] * _BATCH)
        for _ in range(_BATCH):
            tally.one()
