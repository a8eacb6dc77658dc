"""A process that dies at any point loses no message, and repeats few.

The selected cases of a broker run at once. A table at the end of the run shows the
result of each case.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sys
import typing as t
import uuid
from collections import Counter
from dataclasses import dataclass
from types import FunctionType

import pytest
from blinker import NamedSignal

from flask_qconsume import ConsumerScaffold
from flask_qconsume import signals
from flask_qconsume.broker.base import Broker
from flask_qconsume.broker.link import Link

from ..fleet.ledger import Ledger
from ..fleet.ledger import Line
from ..servers import SQLiteFile
from ..servers.fixtures import require
from ..servers.server import end
from ..servers.server import spawn
from ..waiting import wait_for
from .crash_points import ALL
from .crash_points import OF_BROKER
from .crash_points import OF_HANDLERS
from .crash_points import OF_HOOKS
from .crash_points import OF_LINK
from .crash_points import OF_SIGNALS
from .crash_points import SUSPECTS
from .crash_points import Case
from .crash_points import Point
from .crash_points import cases
from .crash_report import FIGURE

ROOT = pathlib.Path(__file__).parents[2]

CONFIG: dict[str, dict[str, t.Any]] = {
    "quorum": {"QUEUE_TYPE": "quorum", "HEARTBEAT": 4},
    "classic": {"QUEUE_TYPE": "classic", "HEARTBEAT": 4},
    "redis": {"LEASE": 3},
    "streams": {"LEASE": 3},
    "postgresql": {"LEASE": 3},
    "sqlite": {"LEASE": 3},
    "kafka": {
        "TRANSPORT_OPTIONS": {
            "partitions": 1,
            "kafka_consumer_config": {
                "session.timeout.ms": 3_000,
                "heartbeat.interval.ms": 500,
            },
        }
    },
}

EVERYWHERE = {
    "CONCURRENCY": 1,
    "PREFETCH": 3,
    "RETRY": {"max_attempts": 3},
    "PUBLISH_TIMEOUT": 30,
}

#: Brokers whose cases are all long tests: another broker settles by the same code.
LONG_AT = {"classic", "postgresql"}


def _is_short(case: Case, broker: str) -> bool:
    return case.short and broker not in LONG_AT


RUNS = [(case, broker) for case in cases() for broker in case.brokers]


#: The fixture of each broker's shared server.
_SERVERS = {
    "quorum": "rabbitmq",
    "classic": "rabbitmq",
    "redis": "redis_server",
    "streams": "redis_server",
    "kafka": "kafka",
    "postgresql": "postgresql",
}


def _url(request: pytest.FixtureRequest, broker: str, stack: t.Any) -> str:
    """Return the URL of a shared server, or of a new part of it."""
    name = _SERVERS[broker]
    require(name)
    server = request.getfixturevalue(name)
    if name == "rabbitmq":
        return str(stack.enter_context(server.vhost()).url)
    if name == "postgresql":
        return str(stack.enter_context(server.database()).url)
    if name == "redis_server":
        return str(server.fresh_url().replace("redis:", f"{_SCHEMES[broker]}:"))
    return str(server.url)


_SCHEMES = {"redis": "redis", "streams": "redis-streams"}


class CrashRuns:
    """The results of the selected cases, which run once for each broker."""

    def __init__(self, request: pytest.FixtureRequest, folder: pathlib.Path) -> None:
        self._request = request
        self._folder = folder
        self._done: set[str] = set()

    def of(self, case: Case, broker: str) -> Ledger:
        """Return the ledger of a case."""
        if broker not in self._done:
            self._done.add(broker)
            self._run(broker)
        return Ledger(self.folder_of(case, broker) / "ledger")

    def folder_of(self, case: Case, broker: str) -> pathlib.Path:
        """Return the folder of a case."""
        return self._folder / broker / f"{RUNS.index((case, broker)):03}"

    def _selected(self, broker: str) -> list[Case]:
        """Return the cases of this broker whose tests are selected."""
        found = (
            getattr(item, "callspec", None) for item in self._request.session.items
        )
        params = [spec.params for spec in found if spec is not None]
        return [p["case"] for p in params if "case" in p and p.get("broker") == broker]

    def _run(self, broker: str) -> None:
        with contextlib.ExitStack() as stack:
            url = self._url(broker, stack)
            plans = [self._plan(case, broker, url) for case in self._selected(broker)]
            path = self._folder / f"{broker}.json"
            path.write_text(json.dumps(plans))
            module = ["gevent.monkey", "--module", "tests.faults.crash_processes"]
            process = spawn(
                [sys.executable, "-m", *module, str(path)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                folder=ROOT,
                output=self._folder / f"{broker}.log",
            )
            try:
                wait_for(lambda: process.poll() is not None, 280, interval=0.2)
            finally:
                end(process, signal.SIGKILL, timeout=20)

    def _url(self, broker: str, stack: contextlib.ExitStack) -> str:
        if broker == "sqlite":
            return SQLiteFile(self._folder / "sqlite-file").url
        return _url(self._request, broker, stack)

    def _plan(self, case: Case, broker: str, url: str) -> dict[str, t.Any]:
        folder = self.folder_of(case, broker)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{uuid.uuid4().hex[:6]}."
        config = {"BROKER_URL": url, "QUEUE_PREFIX": name, **EVERYWHERE}
        config |= CONFIG[broker]
        if case.scenario.endswith(" in order"):
            config["ORDERING"] = "key"
        return {
            "folder": str(folder),
            "config": {f"QCONSUME_{key}": value for key, value in config.items()},
            "key": f"{name}work",
            "scenario": case.scenario,
            "deaths": list(case.deaths),
            "others": list(case.others),
        }


@pytest.fixture(scope="module")
def crash_runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> CrashRuns:
    return CrashRuns(request, tmp_path_factory.mktemp("crashes"))


@dataclass(frozen=True)
class Outcome:
    """The result of a case, read from its ledger."""

    died: list[str]
    starts: Counter[tuple[t.Any, int]]
    done: Counter[t.Any]
    buried: list[t.Mapping[str, t.Any]]
    left: list[int]
    code: int

    @classmethod
    def of(cls, lines: list[Line]) -> Outcome:
        (end,) = [line for line in lines if line.what == "end"] or [None]
        assert end is not None, "it did not come to its end"
        return cls(
            died=[line.n for line in lines if line.what == "died"],
            starts=Counter((x.n, x.attempt) for x in lines if x.what == "start"),
            done=Counter(line.n for line in lines if line.what == "done"),
            buried=end.n["dead"],
            left=end.n["left"],
            code=end.attempt,
        )


@pytest.mark.deadline(300)
@pytest.mark.parametrize(
    ("case", "broker"),
    [
        pytest.param(
            *each,
            id=f"{each[1]}-{each[0].name}",
            marks=[] if _is_short(*each) else [pytest.mark.long],
        )
        for each in RUNS
    ],
)
def test_no_message_is_lost_wherever_its_process_dies(
    crash_runs: CrashRuns,
    case: Case,
    broker: str,
    record_property: t.Callable[[str, object], None],
) -> None:
    lines = crash_runs.of(case, broker).everything()
    logs = [
        p.read_text()[-1500:] for p in crash_runs.folder_of(case, broker).glob("*.log")
    ]
    print("\n".join(logs), [(x.what, x.n, x.attempt) for x in lines])
    found = Outcome.of(lines)
    buries = case.scenario.startswith("reject") or (case.buried and bool(found.buried))
    count = len(found.buried) if buries else found.done[1]
    record_property(FIGURE, f"{count}×{' dead' if buries else ''}")

    # Each process died at its planned point.
    assert found.died == list(case.deaths)
    # Completed or a dead letter: not lost, and repeated within the limit.
    assert 1 <= count <= case.most + case.slack(broker)
    assert found.buried == [] or buries
    for number, most in case.others.items():
        assert 1 <= found.done[number] <= most, number
    # A death does not count as an attempt.
    assert {attempt for _, attempt in found.starts} <= _attempts(case)
    assert 1 <= found.starts[1, 1] <= case.tries + case.slack(broker)
    assert all(letter["x-qconsume-attempts"] == 1 for letter in found.buried)
    # The queues are empty, and the last process stopped cleanly.
    assert (found.left, found.code) == ([0, 0], 0)


def _attempts(case: Case) -> set[int]:
    return {1, 2} if "retry" in case.scenario else {1}


def test_each_method_hook_and_signal_has_its_points() -> None:
    """A new method, hook or signal must be listed in ``crash_points``."""
    assert _methods(Link) == set(OF_LINK)
    assert _methods(Broker) == set(OF_BROKER)
    hooks = {name for name in dir(ConsumerScaffold) if name.endswith(_OF_HOOKS)}
    assert hooks == set(OF_HOOKS)
    sent = {
        name for name, value in vars(signals).items() if isinstance(value, NamedSignal)
    }
    assert sent == set(OF_SIGNALS)


_OF_HOOKS = ("_message", "_worker")


def _methods(of: type) -> set[str]:
    """Return the names of a class's public methods."""
    found = {name: value for name, value in vars(of).items() if name[0] != "_"}
    called = (FunctionType, classmethod)
    return {name for name, value in found.items() if isinstance(value, called)}


def test_each_point_has_a_case_on_each_broker_that_has_it() -> None:
    groups = [*OF_LINK.values(), *OF_BROKER.values(), OF_HANDLERS]
    points = {point for group in groups for point in group}
    assert points | {*OF_SIGNALS.values(), *OF_HOOKS.values()} == set(Point)
    reached = {
        broker: {
            death.removeprefix(SUSPECTS)
            for case, name in RUNS
            if name == broker
            for death in case.deaths
        }
        for broker in ALL
    }
    missing = {
        broker: {point for point in Point if point.value not in found}
        for broker, found in reached.items()
    }
    postponed = {Point.BEFORE_POSTPONE, Point.AFTER_POSTPONE}
    beats = {Point.BEFORE_BEAT, Point.AFTER_BEAT}
    # Kafka's client sends its own heartbeats; only Kafka keeps an order.
    assert missing.pop("kafka") == beats
    assert missing == {broker: postponed for broker in ALL if broker != "kafka"}
