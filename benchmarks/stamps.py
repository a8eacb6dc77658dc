"""Messages with the time of publishing, and their latency when handled.

Both processes read this machine's clock.
"""

from __future__ import annotations

import asyncio
import json
import time
import typing as t
from collections.abc import Awaitable
from collections.abc import Callable

from .job import Job
from .tally import tell


class Stamps:
    """Latencies of messages; the last message prints two percentiles."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._late: list[float] = []

    def one(self, body: t.Mapping[str, float]) -> None:
        """Note that the handling of a message with this body begins."""
        self._late.append(time.time() - body["at"])
        if len(self._late) == self._job.count:
            late = sorted(self._late[self._job.warm_up :])
            figures = {50: _percentile(late, 50), 99: _percentile(late, 99)}
            tell({f"p{name}": value * 1000 for name, value in figures.items()})


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def paced(job: Job, rate: float, publish: Callable[[bytes], object]) -> None:
    """Publish the job's messages at an even rate."""
    begun = time.monotonic()
    for number in range(job.count):
        time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        publish(json.dumps({"at": time.time()}).encode())


async def paced_async(job: Job, publish: Callable[[bytes], Awaitable[object]]) -> None:
    """Publish the job's messages at its even rate, from a coroutine."""
    begun = time.monotonic()
    for number in range(job.count):
        await asyncio.sleep(max(0.0, begun + number / job.pace - time.monotonic()))
        await publish(json.dumps({"at": time.time()}).encode())
