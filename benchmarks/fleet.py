"""``flask qconsume run --processes N`` as a context manager, with its throughput."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request
from collections.abc import Iterator

import psutil

from . import counted_app
from .job import Job

_ROOT = pathlib.Path(__file__).parents[1]

#: Seconds between two counts of handled messages.
_LOOK = 0.01


class FleetError(Exception):
    """The processes did not start, or handle too few messages."""


class Fleet:
    """A running command with its processes.

    :param counter: The file to which each message adds a byte.
    :param gate: A file without which nothing is handled.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        counter: pathlib.Path,
        gate: pathlib.Path,
    ) -> None:
        self._process = process
        self._counter = counter
        self._gate = gate

    def open(self) -> None:
        """Let the handlers begin."""
        self._gate.touch()

    @property
    def handled(self) -> int:
        """Return the number of messages handled by all processes."""
        return self._counter.stat().st_size

    def await_handled(self, count: int, timeout: float) -> float:
        """Wait until this number of messages is handled; return the clock's time."""
        _await(lambda: self.handled >= count, timeout, f"{count} messages are handled")
        return time.perf_counter()

    def cpu(self) -> float:
        """Return the seconds of processor time of the command and its processes."""
        command = psutil.Process(self._process.pid)
        times = [each.cpu_times() for each in (command, *command.children(True))]
        return sum(each.user + each.system for each in times)


@contextlib.contextmanager
def running(job: Job, processes: int, folder: pathlib.Path) -> Iterator[Fleet]:
    """Run this number of consuming processes for a block, and stop them."""
    from tests.servers.ports import free_port

    port = free_port()
    counter = folder / "counter"
    counter.write_bytes(b"")
    gate = folder / "gate"
    process = _started(job, processes, port, counter, gate, folder / "log")
    try:
        _await(lambda: _ready(port, process), 120.0, "all processes consume", 0.2)
        yield Fleet(process, counter, gate)
    except FleetError as error:
        raise FleetError(f"{error}:\n{_end_of(folder / 'log')}") from None
    finally:
        _stop(process)


def _started(
    job: Job,
    processes: int,
    port: int,
    counter: pathlib.Path,
    gate: pathlib.Path,
    log: pathlib.Path,
) -> subprocess.Popen[bytes]:
    app = f"{counted_app.__name__}:create_app"
    command = ["-m", "flask", "--app", app, "qconsume", "run"]
    options = ["--processes", str(processes), "--health", f"127.0.0.1:{port}"]
    environment = {
        counted_app.JOB: job.to_json(),
        counted_app.COUNTER: str(counter),
        counted_app.GATE: str(gate),
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *command, *options],
            cwd=_ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )


def _ready(port: int, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise FleetError(f"the command ended with {process.returncode}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _await(
    condition: t.Callable[[], bool], timeout: float, what: str, look: float = _LOOK
) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise FleetError(f"not within {timeout:g} s: {what}")
        time.sleep(look)


def _end_of(log: pathlib.Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(40.0)
    except subprocess.TimeoutExpired:
        process.kill()  # Its children end with it.
        process.wait(10.0)
