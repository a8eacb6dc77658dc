"""One fault by itself, under light load, on a broker of the proofs.

What a fault does in the midst of others is for the runs to show; this shows that it is
what it says, and that it alone is survived.
"""

from __future__ import annotations

import random
import time
import typing as t
from dataclasses import dataclass

from flask_qconsume import BrokerError

from ..proofs.conftest import Stage
from ..proofs.test_outages import Publishing
from ..proofs.test_outages import longest_silence
from ..waiting import wait_for
from .fault import HEARTBEAT
from .fault import LEASE
from .fault import PUBLISH_TIMEOUT
from .fault import SESSION
from .fault import Fault
from .fault import Scene

#: The longest that a worker waits before it tries to connect again, in seconds.
RECONNECT = 30.0
#: What a busy machine adds to any time.
BUSY = 10.0

#: What a run is told, without ``QCONSUME_``.
CONFIG: dict[str, t.Any] = {
    "HEARTBEAT": HEARTBEAT,
    "PUBLISH_TIMEOUT": PUBLISH_TIMEOUT,
    "RETRY": {"min_delay": 1, "max_delay": 2},
}
KAFKA: dict[str, t.Any] = {
    "LEASE": 6,
    "TRANSPORT_OPTIONS": {
        "partitions": 8,
        "kafka_consumer_config": {
            "session.timeout.ms": round(SESSION * 1000),
            "heartbeat.interval.ms": 500,
        },
    },
}


def config_of(broker: str, **more: t.Any) -> dict[str, t.Any]:
    """What the stage of a broker is made with."""
    kafka = broker in {"kafka", "cluster"}
    return {**CONFIG, **(KAFKA if kafka else {"LEASE": LEASE}), **more}


@dataclass(frozen=True)
class Findings:
    """What one fault did."""

    confirmed: int
    refused: int
    lost: frozenset[int]
    twice: int
    #: The longest time in which nothing was handled, the fault's own included.
    silence: float
    #: Seconds from the fault's end until a message published after it was handled.
    back: float
    logs: str


def undergo(stage: Stage, fault: Fault, broker: str, *, workers: int = 1) -> Findings:
    """Provoke a fault while messages are published, and say what it did."""
    scene, began = scene_of(stage, broker), time.time()
    for _ in range(workers):
        scene.workers.append(stage.fleet.start())
    with Publishing(stage) as publishing:
        publishing.await_more(100)
        fault.apply(scene, random.Random(1))
        over = time.monotonic()
        probe = scene.send()
        wait_for(
            lambda: stage.ledger.counted()[probe],
            RECONNECT + fault.detection + BUSY,
            message=lambda: f"consuming goes on\n{stage.fleet.logs()[-4000:]}",
        )
        back = time.monotonic() - over
        publishing.await_more(100)
    lost = _lost(stage, publishing.confirmed, wait=not fault.told_loss)
    _assert_alive(scene)
    return Findings(
        len(publishing.confirmed),
        publishing.failed,
        lost,
        sum(count > 1 for count in stage.ledger.counted().values()),
        # A worker whose clock is set writes down other times.
        longest_silence([t for t in _times(stage) if began <= t <= time.time()]),
        back,
        stage.fleet.logs(),
    )


def scene_of(stage: Stage, broker: str) -> Scene:
    """What a fault may touch, with no proxy before the broker."""
    numbers = iter(range(1_000_000, 2_000_000))

    def send(**body: t.Any) -> int:
        n = next(numbers)
        wait_for(lambda: _sent(stage, n, body), 60)
        return n

    return Scene(
        place=broker,
        server=stage.server,
        vhost=stage.vhost,
        proxies=(),
        fleet=stage.fleet,
        consumers=stage.consumers,
        send=send,
    )


def _times(stage: Stage) -> list[float]:
    return [line.at for line in stage.ledger.lines()]


def _sent(stage: Stage, n: int, body: dict[str, t.Any]) -> bool:
    try:
        stage.publish([n], **body)
    except BrokerError:
        return False
    return True


def _lost(stage: Stage, confirmed: list[int], *, wait: bool) -> frozenset[int]:
    """What was confirmed and is neither handled nor a dead letter."""
    if wait:
        stage.await_done(confirmed, timeout=120)
    else:
        # What is there is handled; the rest is gone.
        wait_for(lambda: stage.consumers.broker.depth("work") == 0, 60, interval=0.5)
        _await_rest(stage)
    return frozenset(confirmed) - set(stage.ledger.counted())


def _await_rest(stage: Stage) -> None:
    """Wait until a while has passed in which nothing more was handled."""
    seen, since = -1, time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        if (now := len(stage.ledger.lines())) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 2 * LEASE

    wait_for(quiet, 120, interval=0.2)


def _assert_alive(scene: Scene) -> None:
    """None of the workers ended by itself, and all of them end cleanly."""
    for worker in scene.workers:  # One may have been started a moment ago.
        output = worker.output  # type: ignore[attr-defined]
        wait_for(lambda o=output: "consuming the queue" in o.read_text(), 90)
    codes = [worker.poll() for worker in scene.workers]
    assert codes == [None] * len(codes), scene.fleet.logs()[-3000:]
    assert [scene.fleet.term(worker) for worker in scene.workers] == [0] * len(codes)
