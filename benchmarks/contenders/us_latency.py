"""flask_qconsume for `benchmarks.latency`: prints how late its messages are."""

from __future__ import annotations

import time

from .. import plain
from ..job import Job
from ..stamps import Stamps
from ..stamps import paced
from ..tally import tell
from . import us

TITLE = "Flask-QConsume"
BROKERS = us.BROKERS


def declare(job: Job) -> None:
    """Return the queue of both contenders."""
    us.app_of(job, None).extensions["qconsume"].broker.declare()


def listen(job: Job) -> None:
    """Print a line once consuming begins, and consume until killed."""
    from gevent import monkey

    monkey.patch_all()
    from flask_qconsume.running.worker import Worker

    worker = Worker(us.app_with(job, Stamps(job).one))
    worker.start()
    for subscription in worker.subscriptions:
        subscription.consuming.wait(60.0)
    tell({"listens": True})
    while True:
        time.sleep(1)


def pace(job: Job) -> None:
    """Publish at an even pace, by a plain client if both contenders can read it."""
    if job.broker.startswith("rabbitmq"):
        _pace_rabbitmq(job)
    else:
        qconsume = us.app_of(job, None).extensions["qconsume"]
        paced(job, job.pace, lambda body: qconsume.publish(job.queue, body, **us.JSON))


def _pace_rabbitmq(job: Job) -> None:
    import amqp

    with plain.connected(job) as connection:
        channel = connection.channel()

        def publish(body: bytes) -> None:
            options = {"content_type": "application/json", "delivery_mode": 2}
            channel._basic_publish(amqp.Message(body, **options), "", job.queue)

        paced(job, job.pace, publish)
