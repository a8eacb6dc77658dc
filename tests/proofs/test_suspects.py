"""Messages that kill workers are found; messages handled beside them are unharmed."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import typing as t

import amqp
import confluent_kafka
import pytest

from ..brokers.rabbitmq.rabbit import raw_channel
from ..waiting import wait_for
from .conftest import Deployment
from .conftest import MakeDeployment
from .conftest import on_each_broker

#: Messages that one worker fetches.
PREFETCH = 20
KILLERS = range(2)
#: Deaths after which a message becomes a dead letter.
LIMIT = 3


class Workers:
    """Worker processes, each replaced when it dies."""

    def __init__(self, deployment: Deployment, count: int) -> None:
        self._deployment = deployment
        self.running = [deployment.fleet.start(ready=False) for _ in range(count)]
        self.deaths = 0

    def revive(self) -> None:
        """Start a worker for each dead one."""
        for index, worker in enumerate(self.running):
            if worker.poll() is not None:
                self.deaths += 1
                self.running[index] = self._deployment.fleet.start(ready=False)

    def stop(self) -> list[int]:
        """Stop the workers, and return their exit codes."""
        for worker in self.running:
            self._ready(worker)
        return [self._deployment.fleet.term(worker) for worker in self.running]

    def _ready(self, worker: subprocess.Popen[bytes]) -> None:
        path = worker.output  # type: ignore[attr-defined]
        wait_for(lambda: "consuming the queue" in path.read_text(), 60)


def add_foreign(deployment: Deployment, broker: str, body: bytes) -> None:
    """Publish a message without an id, as a foreign program does."""
    url = deployment.fleet.config["BROKER_URL"]
    if broker in ("quorum", "classic"):
        with raw_channel(url) as channel:
            channel.basic_publish(amqp.Message(body), "", "work")
    elif broker == "redis":
        deployment.server.command("LPUSH", "work", body.decode())
    elif broker == "streams":
        deployment.server.command("XADD", "work", "*", "body", body.decode())
    elif broker == "postgresql":
        insert = "INSERT INTO qconsume_message (queue, body) VALUES ('work', %s)"
        deployment.database.execute(insert, body)
    elif broker == "sqlite":
        insert = "INSERT INTO qconsume_message (queue, body) VALUES ('work', ?)"
        deployment.server.execute(insert, body)
    else:
        settings = {"bootstrap.servers": deployment.server.address, "log_level": 0}
        producer = confluent_kafka.Producer(settings)
        producer.produce("work", body)
        assert producer.flush(30) == 0


def kills(n: int) -> dict[str, t.Any]:
    return {"n": n, "do": "kill"}


def _until_found_out(
    deployment: Deployment,
    workers: Workers,
    neighbours: t.Iterable[int],
    restart: bool = False,
) -> None:
    """Wait until all killers are dead letters, and all other messages are handled."""
    wanted = set(neighbours)

    def over() -> bool:
        nonlocal restart
        workers.revive()
        if restart and workers.deaths == 2:
            restart = False
            deployment.server.restart()
        done = set(deployment.ledger.counted())
        # Reading dead letters is slower than reading the ledger.
        return wanted <= done and len(deployment.dead()) >= len(KILLERS)

    wait_for(
        over,
        300,
        interval=0.2,
        message=lambda: (
            f"{sorted(wanted - set(deployment.ledger.counted()))} are missing,"
            f" {len(deployment.dead())} dead letters\n{deployment.fleet.logs()[-3000:]}"
        ),
    )


def _check(deployment: Deployment, neighbours: t.Iterable[int]) -> None:
    """Assert that only the killers are dead letters, each once for the limit."""
    dead = [json.loads(letter.message.raw)["n"] for letter in deployment.dead()]
    assert sorted(dead) == list(KILLERS)
    for letter in deployment.dead():
        assert "QCONSUME_DELIVERY_LIMIT" in letter.headers["x-qconsume-reason"]
    logs = deployment.fleet.logs()
    assert logs.count("is a dead letter: its process died") >= len(KILLERS)
    starts = deployment.ledger.counted("start")
    assert all(1 <= starts[n] <= LIMIT for n in KILLERS), starts
    # One killer began once in the queue, and then in the lane, up to the limit.
    assert max(starts[n] for n in KILLERS) == LIMIT
    assert {line.attempt for line in deployment.ledger.everything()} == {1}
    often = [n for n in neighbours if starts[n] > 2 + _struck(deployment, n)]
    assert not often, f"{often} began too often\n{_describe_run(deployment)}"


def _struck(deployment: Deployment, n: int) -> int:
    """Count how often a suspect was alone in its lane when a killer ended the process.

    That killer was in the queue and not a suspect yet, as from another partition.
    """
    begun: dict[int, int] = {}
    for line in deployment.ledger.lines("start"):
        if line.n in KILLERS:
            begun.setdefault(line.n, line.pid)
    lines = [line for line in deployment.ledger.everything() if line.n == n]
    done = {line.pid for line in lines if line.what == "done"}
    later = [line.pid for line in lines if line.what == "start"][1:]
    return sum(pid in begun.values() and pid not in done for pid in later)


@pytest.mark.deadline(400)
@on_each_broker("postgresql")
@pytest.mark.parametrize(
    "restart", [False, pytest.param(True, marks=pytest.mark.long)], ids=["", "restart"]
)
def test_killers_are_found_out_whatever_their_ids(
    make_deployment: MakeDeployment, broker: str, restart: bool
) -> None:
    """A whole prefetch becomes suspect, and ids do not tell the killers apart.

    One killer has no id, and the other has the same id as all other messages.
    """
    deployment = make_deployment(broker)
    neighbours = range(100, 100 + PREFETCH - len(KILLERS))
    deployment.consumers.broker.declare()
    add_foreign(deployment, broker, json.dumps(kills(0)).encode())
    deployment.consumers.publish("work", kills(1), id="same")
    for n in neighbours:
        deployment.consumers.publish("work", {"n": n, "seconds": 0.2}, id="same")
    workers = Workers(deployment, 1)
    _until_found_out(deployment, workers, neighbours, restart)

    starts = deployment.ledger.counted("start")
    print(f"{broker}: {workers.deaths} deaths, starts {[starts[n] for n in KILLERS]}")
    _check(deployment, neighbours)
    assert workers.stop() == [0]


def _describe_run(deployment: Deployment) -> str:
    """Describe the events in order, and the workers' logs."""
    happened = deployment.ledger.everything()
    lines = [f"{each.at:.3f} {each.pid} {each.what} {each.n}" for each in happened]
    return "\n".join([*lines, deployment.fleet.logs()])


class Traffic:
    """A publisher of healthy messages, some per second, until it is stopped."""

    PAUSE = 0.05

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: The time at which each number was confirmed.
        self.published: dict[int, float] = {}

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        n = 1_000
        while not self._end.wait(self.PAUSE):
            self._deployment.publish([n])
            self.published[n] = time.time()
            n += 1


@pytest.mark.long
@pytest.mark.deadline(600)
@on_each_broker()
def test_traffic_goes_on_while_several_workers_die(
    make_deployment: MakeDeployment, broker: str
) -> None:
    """Three workers, of which several die at once, repeatedly."""
    deployment = make_deployment(broker, PUBLISH_TIMEOUT=60)
    workers = Workers(deployment, 3)
    for worker in workers.running:
        workers._ready(worker)
    with Traffic(deployment) as traffic:
        for n in KILLERS:
            deployment.consumers.publish("work", kills(n))
        _until_found_out(deployment, workers, ())
    deployment.await_done(traffic.published, timeout=120)

    first, last = _lived(deployment)
    meanwhile = [n for n, at in traffic.published.items() if first <= at <= last]
    late = sorted(_latency(deployment, traffic)[n] for n in meanwhile)
    print(
        f"{broker}: {workers.deaths} deaths in {last - first:.0f} s; meanwhile"
        f" {len(meanwhile)} healthy messages, half of them handled within"
        f" {late[len(late) // 2]:.2f} s, all within {late[-1]:.1f} s"
    )
    _check(deployment, traffic.published)
    assert workers.stop() == [0, 0, 0]


def _lived(deployment: Deployment) -> tuple[float, float]:
    """Return the times of the first and the last start of a killer."""
    starts = [line.at for line in deployment.ledger.lines("start") if line.n in KILLERS]
    return min(starts), max(starts)


def _latency(deployment: Deployment, traffic: Traffic) -> dict[int, float]:
    """Return for each number the seconds from its confirmation to its handling."""
    done: dict[int, float] = {}
    for line in deployment.ledger.lines():
        done.setdefault(line.n, line.at)
    return {n: done[n] - at for n, at in traffic.published.items()}


@pytest.mark.deadline(400)
@pytest.mark.parametrize(
    ("broker", "ordering"),
    [
        ("kafka", "key"),
        pytest.param("kafka", "partition", marks=pytest.mark.long),
        ("sqlite", "key"),
        pytest.param("postgresql", "key", marks=pytest.mark.long),
    ],
)
def test_killers_in_an_order_hold_up_their_own_kind_only(
    make_deployment: MakeDeployment, broker: str, ordering: str
) -> None:
    """Suspects of an ordered consumer stay in place; later messages wait for them."""
    deployment = make_deployment(broker, ORDERING=ordering)
    neighbours = range(100, 140)
    for n in KILLERS:
        deployment.consumers.publish("work", kills(n), key=f"k{n}")
    for n in neighbours:
        deployment.consumers.publish("work", {"n": n}, key=f"k{n % 8}")
    workers = Workers(deployment, 1)
    _until_found_out(deployment, workers, neighbours)

    _check(deployment, neighbours)
    for kind in range(8):
        first: dict[int, float] = {}
        for line in deployment.ledger.lines():
            if line.n % 8 == kind:
                first.setdefault(line.n, line.at)
        assert list(first) == sorted(first)
    assert workers.stop() == [0]
