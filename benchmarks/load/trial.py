"""One trial: the example shop runs in one mode, and customers send it requests."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time
import typing as t
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.servers.ports import free_port

from .backlog import Backlog
from .backlog import runs_low

#: The mode without consumers: the web site runs alone.
ALONE = "site alone"
MODES: dict[str, dict[str, t.Any]] = {
    ALONE: {},
    "no co-scheduling": {"QCONSUME_HUB_LATENCY": 0},
    "co-scheduling": {},
}

#: Seconds between two readings of the queues' lengths.
_READING_SECONDS = 1.0

#: How many copies of each message wait at the start of a trial.
_COPIES_AT_START = 75

#: Seconds within which the site must answer after its start.
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """The numbers of customers, and the pause between two requests of a customer."""

    #: For each step, its seconds and its number of customers.
    steps: list[tuple[float, int]]
    period: float


@dataclass(frozen=True)
class Request:
    """One HTTP request of a customer: when it was sent, and how long it took."""

    at: float
    customers: int
    milliseconds: float
    failed: bool


@dataclass(frozen=True)
class QueueReading:
    """The state of the queues at one time."""

    at: float
    #: Number of messages handled since the start, and number of messages that wait.
    handled: int
    lag: int


@dataclass(frozen=True)
class Trial:
    """The measurements of one mode in one round."""

    mode: str
    round: int
    requests: list[Request]
    readings: list[QueueReading]


def run_trials(
    folder: pathlib.Path, url: str, plan: Plan, number: int
) -> Iterator[Trial]:
    """Run a trial of each mode, in a random order."""
    order = list(MODES)
    random.Random(number).shuffle(order)
    for mode in order:
        place = folder / f"{number}-{order.index(mode)}"
        yield _run_trial(place, url, plan, mode, number)


def measure_limit(folder: pathlib.Path, url: str, number: int) -> float:
    """Return how many requests per second the site can serve without consumers."""
    seconds = 8.0
    plan = Plan([(seconds, 30)], period=0.0)
    trial = _run_trial(folder / f"{number}-limit", url, plan, ALONE, number)
    begin = trial.requests[0].at + seconds / 4
    late = [request for request in trial.requests if request.at >= begin]
    return (len(late) - 1) / (late[-1].at - begin)


def _run_trial(
    folder: pathlib.Path, url: str, plan: Plan, mode: str, number: int
) -> Trial:
    folder.mkdir()
    config = _config(folder, url)
    backlog = Backlog(config)
    if mode == ALONE:
        config["QCONSUME_CONSUMERS"] = {n: {"enabled": False} for n in backlog.names}
    else:
        backlog.fill(_COPIES_AT_START)
    with _run_site(folder, {**config, **MODES[mode]}) as address:
        reader = _QueueReader(address, backlog, filled=mode != ALONE)
        requests = _run_customers(folder, address, plan)
        readings = reader.end()
    backlog.close()
    return Trial(mode, number, requests, readings)


def _config(folder: pathlib.Path, url: str) -> dict[str, t.Any]:
    name = f"load-{uuid.uuid4().hex[:6]}"
    return {
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder}/shop.sqlite",
        "QCONSUME_BROKER_URL": url,
        "QCONSUME_QUEUE_PREFIX": f"{name}.",
        "QCONSUME_EXCHANGE": name,
        "SHOP_GATEWAY_TIMEOUTS": 0,
    }


@contextlib.contextmanager
def _run_site(folder: pathlib.Path, config: dict[str, t.Any]) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    environment = {f"FLASK_{key}": json.dumps(value) for key, value in config.items()}
    with open(folder / "site.log", "w") as log:
        process = subprocess.Popen(
            [*_pin_to_core(), *_flask_command(), "qconsume", "run", "--web", address],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for_site(f"http://{address}/stock/", process, folder / "site.log")
            yield f"http://{address}"
        finally:
            process.terminate()
            try:
                process.wait(_START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _flask_command() -> list[str]:
    return [sys.executable, "-m", "flask", "--app", f"{__package__}.site:create_app"]


def _pin_to_core() -> list[str]:
    core = os.environ.get("LOAD_CORE")
    return ["taskset", "-c", core] if core else []


def _wait_for_site(
    url: str, process: subprocess.Popen[bytes], log: pathlib.Path
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _get(url)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"The site does not answer:\n{log.read_text()[-3000:]}")


def _get(url: str) -> t.Any:
    with urllib.request.urlopen(url, timeout=_START_SECONDS) as response:
        return json.load(response)


def _run_customers(folder: pathlib.Path, address: str, plan: Plan) -> list[Request]:
    samples = folder / "samples.csv"
    plan_for_locust = {
        "steps": plan.steps,
        "period": plan.period,
        "samples": str(samples),
    }
    locust = [sys.executable, "-m", "locust", "-f", _locustfile(), "--headless"]
    options = ["--host", address, "--only-summary", "--loglevel", "ERROR"]
    done = subprocess.run(
        [*locust, *options],
        env={**os.environ, "LOAD_PLAN": json.dumps(plan_for_locust)},
        capture_output=True,
        text=True,
        timeout=sum(seconds for seconds, _ in plan.steps) + 2 * _START_SECONDS,
    )
    if not samples.exists():
        raise SystemExit(f"Locust failed:\n{done.stderr[-3000:]}")
    return [_parse_request(line) for line in samples.read_text().splitlines()]


def _locustfile() -> str:
    return str(pathlib.Path(__file__).with_name("customers.py"))


def _parse_request(line: str) -> Request:
    at, customers, milliseconds, failed = line.split(",")
    return Request(float(at), int(customers), float(milliseconds), failed == "1")


class _QueueReader:
    """Reads the queues' lengths during a trial, and refills the queues."""

    def __init__(self, address: str, backlog: Backlog, *, filled: bool) -> None:
        self._url = f"{address}/handled"
        self._backlog = backlog
        self._filled = filled
        self._readings: list[QueueReading] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read_queues)
        if filled:
            self._thread.start()

    def end(self) -> list[QueueReading]:
        self._over.set()
        if self._filled:
            self._thread.join()
        return self._readings

    def _read_queues(self) -> None:
        while not self._over.wait(_READING_SECONDS):
            with contextlib.suppress(OSError):
                handled = _get(self._url)["handled"]
                depths = self._backlog.depths()
                self._readings.append(
                    QueueReading(time.time(), handled, sum(depths.values()))
                )
                if runs_low(depths):
                    self._backlog.fill(10)
