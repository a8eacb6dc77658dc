"""Procrastinate's worker on asyncio; it takes one job at a time."""

from __future__ import annotations

import asyncio
import json
import typing as t

from .. import plain
from ..job import BODY
from ..job import Job
from ..stamps import Stamps
from ..stamps import paced_async
from ..tally import Tally
from ..tally import tell

TITLE = "Procrastinate"
BROKERS = ("postgresql",)

_BATCH = 500
_ORDER = {"order": json.loads(BODY)}


def drain(job: Job) -> None:
    tally = Tally(job)

    async def handle(order: t.Any) -> None:
        if job.work:
            await asyncio.sleep(job.work)
        tally.one()

    asyncio.run(_work(job, handle))


async def _work(job: Job, handle: t.Any, listening: t.Any = None) -> None:
    app, _ = _app(job, handle)
    async with app.open_async():
        # Other values of 'delete_jobs' keep finished jobs, which is no faster.
        worker = app.run_worker_async(
            concurrency=job.concurrency, delete_jobs="successful"
        )
        await asyncio.gather(worker, *([listening()] if listening else []))


async def _never(order: t.Any) -> None:
    raise AssertionError("this process only publishes")


def _app(job: Job, handle: t.Any = _never) -> tuple[t.Any, t.Any]:
    from procrastinate import App
    from procrastinate import PsycopgConnector

    # As many connections as the worker and its jobs can use at once.
    app = App(connector=PsycopgConnector(conninfo=job.url, min_size=4, max_size=20))
    return app, app.task(name="handle", queue="default")(handle)


def fill(job: Job) -> None:
    declare(job)
    asyncio.run(_published(job, job.count, _BATCH))


def declare(job: Job) -> None:
    """Create its tables."""

    async def apply() -> None:
        app, _ = _app(job)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(apply())


def left(job: Job) -> int:
    unfinished = "status in ('todo', 'doing')"
    return plain.postgresql_count(job, "procrastinate_jobs", unfinished)


def publish(job: Job) -> None:
    """Publish from a hundred coroutines, each of which waits for its commits."""
    declare(job)
    asyncio.run(_publish(job))


async def _publish(job: Job) -> None:
    app, handle = _app(job)
    tally = Tally(job)

    async def some() -> None:
        for _ in range(job.count // job.concurrency):
            await handle.defer_async(**_ORDER)
            tally.one()

    async with app.open_async():
        await asyncio.gather(*[some() for _ in range(job.concurrency)])


def publish_many(job: Job) -> None:
    """Publish in batches, each of which is one transaction."""
    declare(job)
    asyncio.run(_published(job, job.count, _BATCH, Tally(job)))


async def _published(
    job: Job, count: int, batch: int, tally: Tally | None = None
) -> None:
    app, handle = _app(job)
    async with app.open_async():
        for _ in range(count // batch):
            await handle.batch_defer_async(*[_ORDER] * batch)
            if tally is not None:
                for _ in range(batch):
                    tally.one()


def listen(job: Job) -> None:
    """Print a line once it listens, and consume until killed."""
    stamps = Stamps(job)

    async def handle(order: t.Any) -> None:
        stamps.one(order)

    async def listening() -> None:
        await asyncio.sleep(1.0)
        tell({"listens": True})

    asyncio.run(_work(job, handle, listening))


def pace(job: Job) -> None:
    """Publish at an even pace."""
    asyncio.run(_pace(job))


async def _pace(job: Job) -> None:
    app, handle = _app(job)
    async with app.open_async():
        await paced_async(job, lambda body: handle.defer_async(order=json.loads(body)))
