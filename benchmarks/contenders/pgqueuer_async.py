"""pgqueuer's queue manager on asyncpg; it takes jobs in batches of a hundred."""

from __future__ import annotations

import asyncio
import contextlib
import json
import typing as t
from collections.abc import AsyncIterator

from .. import plain
from ..job import BODY
from ..job import Job
from ..stamps import Stamps
from ..stamps import paced_async
from ..tally import Tally
from ..tally import tell

TITLE = "pgqueuer"
BROKERS = ("postgresql",)

_BATCH = 500


def drain(job: Job) -> None:
    import uvloop

    tally = Tally(job)

    async def handle(order: t.Any) -> None:
        json.loads(order.payload)
        if job.work:
            await asyncio.sleep(job.work)
        tally.one()

    uvloop.run(_work(job, handle))


async def _work(job: Job, handle: t.Any, listening: t.Any = None) -> None:
    import asyncpg
    from pgqueuer import AsyncpgPoolDriver
    from pgqueuer import Queries
    from pgqueuer import QueueManager

    async with asyncpg.create_pool(job.url, min_size=4, max_size=10) as pool:
        manager = QueueManager(Queries(AsyncpgPoolDriver(pool)))
        manager.entrypoint("handle")(handle)
        # Twice the batch is the least that it takes as limit.
        running = manager.run(
            batch_size=job.concurrency, max_concurrent_tasks=2 * job.concurrency
        )
        await asyncio.gather(running, *([listening()] if listening else []))


@contextlib.asynccontextmanager
async def _queries(job: Job) -> AsyncIterator[t.Any]:
    import asyncpg
    from pgqueuer import AsyncpgPoolDriver
    from pgqueuer import Queries

    async with asyncpg.create_pool(job.url, min_size=4, max_size=10) as pool:
        yield Queries(AsyncpgPoolDriver(pool))


def fill(job: Job) -> None:
    declare(job)
    asyncio.run(_publish_many(job))


def declare(job: Job) -> None:
    """Create its tables."""

    async def install() -> None:
        async with _queries(job) as queries:
            await queries.install()

    asyncio.run(install())


def left(job: Job) -> int:
    return plain.postgresql_count(job, "pgqueuer")


def publish(job: Job) -> None:
    """Publish from a hundred coroutines, each of which waits for its commits."""
    import uvloop

    declare(job)
    uvloop.run(_publish(job))


async def _publish(job: Job) -> None:
    tally = Tally(job)
    async with _queries(job) as queries:

        async def some() -> None:
            for _ in range(job.count // job.concurrency):
                await queries.enqueue("handle", BODY)
                tally.one()

        await asyncio.gather(*[some() for _ in range(job.concurrency)])


def publish_many(job: Job) -> None:
    """Publish in batches, each of which is one statement."""
    declare(job)
    asyncio.run(_publish_many(job, Tally(job)))


async def _publish_many(job: Job, tally: Tally | None = None) -> None:
    batch = ["handle"] * _BATCH, [BODY] * _BATCH, [0] * _BATCH
    async with _queries(job) as queries:
        for _ in range(job.count // _BATCH):
            await queries.enqueue(*batch)
            if tally is not None:
                for _ in range(_BATCH):
                    tally.one()


def listen(job: Job) -> None:
    """Print a line once it listens, and consume until killed."""
    import uvloop

    stamps = Stamps(job)

    async def handle(order: t.Any) -> None:
        stamps.one(json.loads(order.payload))

    async def listening() -> None:
        await asyncio.sleep(1.0)
        tell({"listens": True})

    uvloop.run(_work(job, handle, listening))


def pace(job: Job) -> None:
    """Publish at an even pace."""
    asyncio.run(_pace(job))


async def _pace(job: Job) -> None:
    async with _queries(job) as queries:
        await paced_async(job, lambda body: queries.enqueue("handle", body))
