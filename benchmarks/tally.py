"""Count and time of messages inside a contender's process."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import time
from collections.abc import Mapping

from .job import Job


class Tally:
    """Counter of messages; its clock runs from the end of the warm-up to the last.

    The last one prints the figures as one line of JSON; the process goes on, so that
    what is acknowledged later is acknowledged, until it is killed from outside.
    """

    def __init__(self, job: Job) -> None:
        self._last = job.handled
        self._first = job.warm_up
        self._done = 0
        self._began = (0.0, 0.0)

    def one(self) -> None:
        """Count a handled message."""
        self._done += 1
        if self._done == self._first:
            self.begin()
        elif self._done == self._last:
            self.end(self._last - self._first)

    def begin(self) -> None:
        self._began = (time.perf_counter(), cpu())

    def end(self, messages: int) -> None:
        seconds = time.perf_counter() - self._began[0]
        used = cpu() - self._began[1]
        figures = {
            "rate": messages / seconds,
            "cpu": used / messages * 1e6,
            "memory": memory("VmHWM"),
        }
        tell(figures)


def tell(figures: Mapping[str, object]) -> None:
    """Print figures as one line of JSON."""
    # Not by 'sys.stdout', which Celery replaces.
    os.write(1, json.dumps(figures).encode() + b"\n")


def cpu() -> float:
    """Return the seconds of processor time of this process and its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def memory(field: str = "VmRSS") -> float:
    """Return the memory of this process in MiB; with ``VmHWM`` its peak."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")
