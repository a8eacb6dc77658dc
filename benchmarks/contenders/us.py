"""flask_qconsume: a worker with its full handling of messages and app contexts."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Callable

from .. import plain
from ..job import BODY
from ..job import Job
from ..tally import Tally

TITLE = "flask_qconsume"
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

_SCHEMES = {"redis-streams": ("redis://", "redis-streams://")}


def drain(job: Job) -> None:
    from gevent import monkey

    monkey.patch_all()
    from flask_qconsume.running.gc_tuning import collect_less_often
    from flask_qconsume.running.worker import Worker

    tally = Tally(job)
    app = app_of(job, tally)
    collect_less_often()  # As "flask qconsume run" does.
    if job.broker == "memory":
        published(app, job)
    Worker(app).start()
    while True:
        time.sleep(1)


#: Publishes a body of bytes unchanged.
JSON = {"content_type": "application/json"}


def app_of(job: Job, tally: t.Any) -> t.Any:
    """Make an app whose consumer counts each message in ``tally``, if there is one."""

    def handle(order: t.Any) -> None:
        if job.work:
            time.sleep(job.work)
        if tally is not None:
            tally.one()

    return app_with(job, handle)


def app_with(job: Job, handle: Callable[[t.Any], None]) -> t.Any:
    """Make an app with this function as consumer, and with idle consumers."""
    from flask import Flask

    from flask_qconsume import QConsume

    app = Flask("benchmark")
    app.testing = True  # What is published in memory waits for a worker.
    app.config["QCONSUME_BROKER_URL"] = job.url.replace(*_SCHEMES.get(job.broker, "  "))
    quorum = job.broker == "rabbitmq-quorum"
    app.config["QCONSUME_QUEUE_TYPE"] = "quorum" if quorum else "classic"
    if job.metrics:  # Unknown to earlier versions, with which this one is compared.
        app.config["QCONSUME_METRICS"] = True
    qconsume = QConsume()

    options = {"concurrency": job.concurrency, "prefetch": job.prefetch}
    schema = _schema() if job.schema else None
    qconsume.add_consumer(job.queue, handle, name="handle", schema=schema, **options)
    for number in range(job.idle):
        name = f"idle-{number}"
        qconsume.add_consumer(f"{job.queue}-{name}", _never, name=name)
    qconsume.init_app(app)
    return app


def _never(order: t.Any) -> None:
    raise AssertionError("nothing is published for this one")


def _schema() -> t.Any:
    from marshmallow import Schema
    from marshmallow import fields

    class Item(Schema):
        sku = fields.Str(required=True)
        count = fields.Int(required=True)
        price = fields.Decimal(required=True)

    class Order(Schema):
        id = fields.Int(required=True)
        customer = fields.Str(required=True)
        items = fields.List(fields.Nested(Item), required=True)

    return Order()


def fill(job: Job) -> None:
    """Fill the consumer's queue with plain messages."""
    if job.broker == "memory":
        return  # It fills its own, in its own process.
    broker = app_of(job, None).extensions["qconsume"].broker
    broker.declare()
    if job.broker.startswith("rabbitmq"):
        plain.rabbitmq(job, declared=True)
    elif job.broker == "kafka":
        plain.fill(job)
    else:
        published(app_of(job, None), job)


def published(app: t.Any, job: Job) -> None:
    """Publish the job's messages."""
    publisher, body = app.extensions["qconsume"], job.body
    # In batches, to keep few messages in memory.
    step = max(1, min(1000, 10_000_000 // len(body)))
    for begun in range(0, job.count, step):
        number = min(step, job.count - begun)
        publisher.publish_many([(job.queue, body, JSON)] * number)


def left(job: Job) -> int:
    if job.broker == "memory":
        return 0  # It died with the process; what is left was counted before.
    if job.broker in ("postgresql", "sqlite"):
        return plain.sql_count(job, "qconsume_message")
    return int(app_of(job, None).extensions["qconsume"].broker.depth(job.queue))


def publish(job: Job) -> None:
    """Publish from a hundred greenlets, each of which waits for its confirmations."""
    from gevent import monkey

    monkey.patch_all()
    import gevent

    app = app_of(job, None)
    publisher = app.extensions["qconsume"]
    tally = Tally(job)

    def some() -> None:
        for _ in range(job.count // job.concurrency):
            publisher.publish(job.queue, BODY, **JSON)
            tally.one()

    gevent.joinall([gevent.spawn(some) for _ in range(job.concurrency)])
