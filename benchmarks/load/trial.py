"""One trial: the shop and its customers for a minute, in one mode."""

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

#: What each mode asks of the shop.
ALONE = "site alone"
MODES: dict[str, dict[str, t.Any]] = {
    ALONE: {},
    "no co-scheduling": {"QCONSUME_HUB_LATENCY": 0},
    "co-scheduling": {},
}

#: Seconds between two looks at the queues.
_LOOK = 1.0

#: How often each message waits in the beginning.
_FULL = 75

#: Seconds that a start may take.
_START = 30.0


@dataclass(frozen=True)
class Plan:
    """How many customers come, and how long they wait between two requests."""

    #: Seconds and customers of each.
    steps: list[tuple[float, int]]
    period: float


@dataclass(frozen=True)
class Request:
    """One request as a customer saw it."""

    at: float
    customers: int
    milliseconds: float
    failed: bool


@dataclass(frozen=True)
class Look:
    """The queues at one moment."""

    at: float
    #: How many messages were handled so far, and how many wait.
    handled: int
    lag: int


@dataclass(frozen=True)
class Trial:
    """All that was seen in one mode in one round."""

    mode: str
    round: int
    requests: list[Request]
    looks: list[Look]


def play(folder: pathlib.Path, url: str, plan: Plan, number: int) -> Iterator[Trial]:
    """Each mode once, in another order each round."""
    order = list(MODES)
    random.Random(number).shuffle(order)
    for mode in order:
        place = folder / f"{number}-{order.index(mode)}"
        yield _trial(place, url, plan, mode, number)


def limit_of(folder: pathlib.Path, url: str, number: int) -> float:
    """The most requests a second that the site alone can serve now."""
    seconds = 8.0
    plan = Plan([(seconds, 30)], period=0.0)
    trial = _trial(folder / f"{number}-limit", url, plan, ALONE, number)
    begin = trial.requests[0].at + seconds / 4
    late = [each for each in trial.requests if each.at >= begin]
    return (len(late) - 1) / (late[-1].at - begin)


def _trial(folder: pathlib.Path, url: str, plan: Plan, mode: str, number: int) -> Trial:
    folder.mkdir()
    config = _config(folder, url)
    backlog = Backlog(config)
    if mode == ALONE:
        config["QCONSUME_CONSUMERS"] = {n: {"enabled": False} for n in backlog.names}
    else:
        backlog.fill(_FULL)
    with _site(folder, {**config, **MODES[mode]}) as address:
        watch = _Watch(address, backlog, filled=mode != ALONE)
        requests = _customers(folder, address, plan)
        looks = watch.end()
    backlog.close()
    return Trial(mode, number, requests, looks)


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
def _site(folder: pathlib.Path, config: dict[str, t.Any]) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    environment = {f"FLASK_{key}": json.dumps(value) for key, value in config.items()}
    with open(folder / "site.log", "w") as log:
        process = subprocess.Popen(
            [*_pinned(), *_flask(), "qconsume", "run", "--web", address],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
        try:
            _await(f"http://{address}/stock/", process, folder / "site.log")
            yield f"http://{address}"
        finally:
            process.terminate()
            try:
                process.wait(_START)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _flask() -> list[str]:
    return [sys.executable, "-m", "flask", "--app", f"{__package__}.site:create_app"]


def _pinned() -> list[str]:
    core = os.environ.get("LOAD_CORE")
    return ["taskset", "-c", core] if core else []


def _await(url: str, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _get(url)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"The site does not answer:\n{log.read_text()[-3000:]}")


def _get(url: str) -> t.Any:
    with urllib.request.urlopen(url, timeout=_START) as response:
        return json.load(response)


def _customers(folder: pathlib.Path, address: str, plan: Plan) -> list[Request]:
    samples = folder / "samples.csv"
    told = {"steps": plan.steps, "period": plan.period, "samples": str(samples)}
    locust = [sys.executable, "-m", "locust", "-f", _locustfile(), "--headless"]
    options = ["--host", address, "--only-summary", "--loglevel", "ERROR"]
    done = subprocess.run(
        [*locust, *options],
        env={**os.environ, "LOAD_PLAN": json.dumps(told)},
        capture_output=True,
        text=True,
        timeout=sum(seconds for seconds, _ in plan.steps) + 2 * _START,
    )
    if not samples.exists():
        raise SystemExit(f"Locust failed:\n{done.stderr[-3000:]}")
    return [_request(line) for line in samples.read_text().splitlines()]


def _locustfile() -> str:
    return str(pathlib.Path(__file__).with_name("customers.py"))


def _request(line: str) -> Request:
    at, customers, milliseconds, failed = line.split(",")
    return Request(float(at), int(customers), float(milliseconds), failed == "1")


class _Watch:
    """Looks at the queues meanwhile, and keeps them full."""

    def __init__(self, address: str, backlog: Backlog, *, filled: bool) -> None:
        self._url = f"{address}/handled"
        self._backlog = backlog
        self._filled = filled
        self._looks: list[Look] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        if filled:
            self._thread.start()

    def end(self) -> list[Look]:
        self._over.set()
        if self._filled:
            self._thread.join()
        return self._looks

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            with contextlib.suppress(OSError):
                handled = _get(self._url)["handled"]
                depths = self._backlog.depths()
                self._looks.append(Look(time.time(), handled, sum(depths.values())))
                if runs_low(depths):
                    self._backlog.fill(10)
