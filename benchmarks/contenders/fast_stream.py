"""FastStream on uvloop; with a schema, pydantic's."""

from __future__ import annotations

import asyncio
import decimal
import typing as t

from .. import plain
from ..job import Job
from ..tally import Tally

TITLE = "FastStream"
BROKERS = ("rabbitmq", "rabbitmq-quorum", "redis-streams", "kafka")


def drain(job: Job) -> None:
    import uvloop

    uvloop.run(_drain(job))


async def _drain(job: Job) -> None:
    from faststream import FastStream

    tally = Tally(job)
    broker, subscriber = _subscriber(job)

    async def handle(order: t.Any) -> None:
        if job.work:
            await asyncio.sleep(job.work)
        tally.one()

    handle.__annotations__ = {"order": _model() if job.schema else dict}
    subscriber(handle)
    await FastStream(broker).run(run_extra_options={})


def _subscriber(job: Job) -> tuple[t.Any, t.Any]:
    if job.broker.startswith("rabbitmq"):
        return _rabbit(job)
    if job.broker == "kafka":
        return _kafka(job)
    from faststream.redis import RedisBroker
    from faststream.redis import StreamSub

    plain.redis_client(job).xgroup_create(job.queue, plain.GROUP, "0")
    broker = RedisBroker(job.url, logger=None)
    stream = StreamSub(
        job.queue, group=plain.GROUP, consumer="one", max_records=job.prefetch
    )
    return broker, broker.subscriber(stream=stream, max_workers=job.concurrency)


def _rabbit(job: Job) -> tuple[t.Any, t.Any]:
    from faststream.rabbit import Channel
    from faststream.rabbit import RabbitBroker
    from faststream.rabbit import RabbitQueue

    channel = Channel(prefetch_count=job.prefetch)
    broker = RabbitBroker(job.url, default_channel=channel, logger=None)
    return broker, broker.subscriber(RabbitQueue(job.queue, declare=False))


def _kafka(job: Job) -> tuple[t.Any, t.Any]:
    from faststream import AckPolicy
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(plain.kafka_servers(job), logger=None)
    subscriber = broker.subscriber(
        job.queue,
        group_id=job.queue,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK,
    )
    return broker, subscriber


def _model() -> type:
    from pydantic import BaseModel
    from pydantic import create_model

    item = create_model(
        "Item", sku=(str, ...), count=(int, ...), price=(decimal.Decimal, ...)
    )
    order: type[BaseModel] = create_model(
        "Order", id=(int, ...), customer=(str, ...), items=(list[item], ...)
    )
    return order
