"""A process that dies at any point of a message's way: nothing lost, little twice.

The cases of one broker run at once, those that were selected; the table at the end of
the run tells what became of each.
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

#: Where all are long ones: a sibling that settles by the same code has the short ones.
LONG_AT = {"classic"}


def _is_short(case: Case, broker: str) -> bool:
    return case.short and broker not in LONG_AT


RUNS = [(case, broker) for case in cases() for broker in case.brokers]


def _url(request: pytest.FixtureRequest, broker: str, stack: t.Any) -> str:
    """Of the shared server of a kind; on RabbitMQ a virtual host of our own."""
    fixture = {"redis": "redis_server", "streams": "redis_server"}
    name = fixture.get(broker, "kafka" if broker == "kafka" else "rabbitmq")
    require(name)
    server = request.getfixturevalue(name)
    if name == "rabbitmq":
        return str(stack.enter_context(server.vhost()).url)
    if name == "redis_server":
        return str(server.fresh_url().replace("redis:", f"{_SCHEMES[broker]}:"))
    return str(server.url)


_SCHEMES = {"redis": "redis", "streams": "redis-streams"}


class Lives:
    """What became of the selected cases, broker by broker; each runs once."""

    def __init__(self, request: pytest.FixtureRequest, folder: pathlib.Path) -> None:
        self._request = request
        self._folder = folder
        self._done: set[str] = set()

    def of(self, case: Case, broker: str) -> Ledger:
        """The ledger of a case."""
        if broker not in self._done:
            self._done.add(broker)
            self._run(broker)
        return Ledger(self.place(case, broker) / "ledger")

    def place(self, case: Case, broker: str) -> pathlib.Path:
        """Where its processes wrote."""
        return self._folder / broker / f"{RUNS.index((case, broker)):03}"

    def _selected(self, broker: str) -> list[Case]:
        """Those whose tests are to run, or this one's."""
        found = (
            getattr(item, "callspec", None) for item in self._request.session.items
        )
        params = [spec.params for spec in found if spec is not None]
        return [p["case"] for p in params if "case" in p and p.get("place") == broker]

    def _run(self, broker: str) -> None:
        with contextlib.ExitStack() as stack:
            url = _url(self._request, broker, stack)
            plans = [self._plan(case, broker, url) for case in self._selected(broker)]
            path = self._folder / f"{broker}.json"
            path.write_text(json.dumps(plans))
            module = ["gevent.monkey", "--module", "tests.faults.crash_lives"]
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

    def _plan(self, case: Case, broker: str, url: str) -> dict[str, t.Any]:
        place = self.place(case, broker)
        place.mkdir(parents=True, exist_ok=True)
        name = f"{uuid.uuid4().hex[:6]}."
        config = {"BROKER_URL": url, "QUEUE_PREFIX": name, **EVERYWHERE}
        config |= CONFIG[broker]
        if case.story.endswith(" in order"):
            config["ORDERING"] = "key"
        return {
            "folder": str(place),
            "config": {f"QCONSUME_{key}": value for key, value in config.items()},
            "key": f"{name}work",
            "story": case.story,
            "deaths": list(case.deaths),
            "others": list(case.others),
        }


@pytest.fixture(scope="module")
def lives(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Lives:
    return Lives(request, tmp_path_factory.mktemp("lives"))


@dataclass(frozen=True)
class Outcome:
    """What the ledger of a case says."""

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
    ("case", "place"),
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
    lives: Lives,
    case: Case,
    place: str,
    record_property: t.Callable[[str, object], None],
) -> None:
    lines = lives.of(case, place).everything()
    logs = [p.read_text()[-1500:] for p in lives.place(case, place).glob("*.log")]
    print("\n".join(logs), [(x.what, x.n, x.attempt) for x in lines])
    found = Outcome.of(lines)
    buries = case.story.startswith("reject") or (case.buried and bool(found.buried))
    count = len(found.buried) if buries else found.done[1]
    record_property(FIGURE, f"{count}×{' dead' if buries else ''}")

    # It did die there, as often as it was to.
    assert found.died == list(case.deaths)
    # Handled, or a dead letter: not lost, and not repeated without end.
    assert 1 <= count <= case.most + case.slack(place)
    assert found.buried == [] or buries
    for number, most in case.others.items():
        assert 1 <= found.done[number] <= most, number
    # A death is no attempt.
    assert {attempt for _, attempt in found.starts} <= _attempts(case)
    assert 1 <= found.starts[1, 1] <= case.tries + case.slack(place)
    assert all(letter["x-qconsume-attempts"] == 1 for letter in found.buried)
    # Nothing is left behind, and the last one stopped well.
    assert (found.left, found.code) == ([0, 0], 0)


def _attempts(case: Case) -> set[int]:
    return {1, 2} if "retry" in case.story else {1}


def test_each_seam_of_the_code_has_its_points() -> None:
    """What is added to a link, a broker, the hooks or the signals must be told here."""
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
    """What can be called on it."""
    found = {name: value for name, value in vars(of).items() if name[0] != "_"}
    called = (FunctionType, classmethod)
    return {name for name, value in found.items() if isinstance(value, called)}


def test_each_point_has_a_case_on_each_broker_that_has_it() -> None:
    seams = [*OF_LINK.values(), *OF_BROKER.values(), OF_HANDLERS]
    points = {point for seam in seams for point in seam}
    assert points | {*OF_SIGNALS.values(), *OF_HOOKS.values()} == set(Point)
    reached = {
        broker: {
            death.removeprefix(SUSPECTS)
            for case, place in RUNS
            if place == broker
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
    # Kafka's client beats by itself; an order is kept by nobody else.
    assert missing.pop("kafka") == beats
    assert missing == {broker: postponed for broker in ALL if broker != "kafka"}
