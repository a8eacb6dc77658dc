"""redis-py reading a stream in batches, acknowledging each batch at once; and XADD."""

from __future__ import annotations

import json
import time

from .. import plain
from ..job import BODY
from ..job import Job
from ..tally import Tally

TITLE = "redis-py"
BROKERS = ("redis-streams",)


def drain(job: Job) -> None:
    tally = Tally(job)
    client = plain.redis_client(job)
    client.xgroup_create(job.queue, plain.GROUP, "0")
    streams = {job.queue: ">"}
    while True:
        found = client.xreadgroup(
            plain.GROUP, "one", streams, count=job.prefetch, block=1000
        )
        for _, entries in found:
            for _, fields in entries:
                json.loads(fields[b"body"])
                if job.work:
                    time.sleep(job.work)
                tally.one()
            client.xack(job.queue, plain.GROUP, *[entry for entry, _ in entries])


def publish(job: Job) -> None:
    """Publish from a hundred greenlets, each of which waits for its answers."""
    from gevent import monkey

    monkey.patch_all()
    import gevent

    client = plain.redis_client(job)
    entry = {"body": BODY, "content-type": "application/json"}
    tally = Tally(job)

    def some() -> None:
        for _ in range(job.count // job.concurrency):
            client.xadd(job.queue, entry)
            tally.one()

    gevent.joinall([gevent.spawn(some) for _ in range(job.concurrency)])
