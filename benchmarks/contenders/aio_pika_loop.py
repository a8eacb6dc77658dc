"""aio-pika on uvloop."""

from __future__ import annotations

import asyncio
import json
import typing as t

from ..job import BODY
from ..job import Job
from ..tally import Tally

TITLE = "aio-pika, uvloop"
BROKERS = ("rabbitmq", "rabbitmq-quorum")


def drain(job: Job) -> None:
    import uvloop

    uvloop.run(_drain(job))


async def _drain(job: Job) -> None:
    import aio_pika

    tally = Tally(job)
    connection = await aio_pika.connect(job.url)
    channel = await connection.channel()
    await channel.set_qos(job.prefetch)
    queue = await channel.get_queue(job.queue)
    free = asyncio.Semaphore(job.concurrency)

    async def handle(message: t.Any) -> None:
        async with free:
            json.loads(message.body)
            if job.work:
                await asyncio.sleep(job.work)
            await message.ack()
            tally.one()

    await queue.consume(handle)
    await asyncio.Future()


def publish(job: Job) -> None:
    import uvloop

    uvloop.run(_publish(job))


async def _publish(job: Job) -> None:
    """Publish from a hundred coroutines, each of which waits for its confirmations."""
    import aio_pika

    connection = await aio_pika.connect(job.url)
    channel = await connection.channel()
    quorum = {"x-queue-type": "quorum"} if job.broker == "rabbitmq-quorum" else {}
    await channel.declare_queue(job.queue, durable=True, arguments=quorum)
    tally = Tally(job)

    async def some() -> None:
        for _ in range(job.count // job.concurrency):
            message = aio_pika.Message(
                BODY,
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await channel.default_exchange.publish(message, job.queue)
            tally.one()

    await asyncio.gather(*[some() for _ in range(job.concurrency)])
