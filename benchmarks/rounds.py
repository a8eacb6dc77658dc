"""Rounds: all contenders run once per round, under the same conditions."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import typing as t
import uuid
from collections.abc import Iterator
from collections.abc import Mapping

from . import brokers
from .job import Job

#: Most seconds of the acknowledgements after the last handled message.
GRACE = 1.0


@dataclasses.dataclass(frozen=True)
class Run:
    """Figures of one contender in one round."""

    contender: str
    round: int
    #: Messages per second.
    rate: float
    #: Microseconds of processor time per message.
    cpu: float
    #: Peak memory of the process in MiB.
    memory: float
    #: Messages left on the broker after the process was killed.
    left: int | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """Figures of one contender over all rounds."""

    contender: str
    runs: list[Run]

    def median(self, figure: str) -> float:
        return statistics.median(getattr(run, figure) for run in self.runs)

    @property
    def spread(self) -> tuple[float, float]:
        """Return the lowest and the highest rate."""
        rates = [run.rate for run in self.runs]
        return min(rates), max(rates)

    @property
    def left(self) -> int:
        return max(run.left or 0 for run in self.runs)


def play(
    do: str, jobs: Mapping[str, Job], rounds: int, timeout: float
) -> Iterator[Run]:
    """Run each contender's job once per round, in random order."""
    order = list(jobs)
    for number in range(1, rounds + 1):
        random.Random(number).shuffle(order)
        for name in order:
            queue = f"bench-{uuid.uuid4().hex[:8]}"
            job = jobs[name]
            url = brokers.fresh_url(job.broker, job.url, queue)
            one = dataclasses.replace(job, queue=queue, url=url)
            try:
                yield _run(do, name, number, one, timeout)
            except (RuntimeError, subprocess.SubprocessError) as error:
                print(f"{name}: {error}", file=sys.stderr)


def _run(do: str, name: str, number: int, job: Job, timeout: float) -> Run:
    if do == "drain" and job.broker != "memory":
        call(name, "fill", job, timeout)
    figures = measured(do, name, job, timeout)
    left = None
    if do == "drain" and job.broker != "memory":
        left = int(call(name, "left", job, timeout))
    return Run(name, number, left=left, **figures)


def measured(do: str, name: str, job: Job, timeout: float) -> dict[str, float]:
    """Start the contender, wait for its figures, and kill it."""
    with told(name, do, job, timeout) as lines:
        figures = next(lines)
        time.sleep(GRACE)
    return figures


@contextlib.contextmanager
def told(
    name: str, do: str, job: Job, timeout: float
) -> Iterator[Iterator[dict[str, t.Any]]]:
    """Yield the output lines of a contender's process, and kill it at the end."""
    process = subprocess.Popen(
        command(name, do, job),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    killer = _Killer(process, timeout)
    try:
        yield _lines(process)
    finally:
        killer.over()
        process.communicate()


def _lines(process: subprocess.Popen[str]) -> Iterator[dict[str, t.Any]]:
    for line in process.stdout or ():
        if line.startswith("{"):
            yield json.loads(line)
    errors = process.stderr.read() if process.stderr else ""
    raise RuntimeError(f"gave no figures; it printed:\n{errors[-3000:]}")


class _Killer:
    """Kill a process group at the end, or at its time limit."""

    def __init__(self, process: subprocess.Popen[str], timeout: float) -> None:
        import threading

        self._process = process
        self._timer = threading.Timer(timeout, self._kill)
        self._timer.daemon = True
        self._timer.start()

    def over(self) -> None:
        self._timer.cancel()
        self._kill()

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def call(name: str, do: str, job: Job, timeout: float) -> str:
    """Run a step of a contender in a process, and return its last line."""
    done = subprocess.run(
        command(name, do, job), capture_output=True, text=True, timeout=timeout
    )
    if done.returncode:
        raise RuntimeError(f"'{do}' failed:\n{done.stderr[-3000:]}")
    return done.stdout.strip().rpartition("\n")[2]


def command(name: str, do: str, job: Job) -> list[str]:
    here = [sys.executable, "-m", f"{__package__}.contender"]
    return [*here, name, do, job.to_json()]
