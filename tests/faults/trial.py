"""Trial of a single fault under light load.

A trial shows that a fault has the effect that its name says, and that workers survive
it. Runs show the effects of many faults in sequence.
"""

from __future__ import annotations

import random
import time
import typing as t
from dataclasses import dataclass

from flask_qconsume import BrokerError

from ..proofs.conftest import Deployment
from ..proofs.test_outages import Publishing
from ..proofs.test_outages import longest_silence
from ..waiting import wait_for
from .fault import HEARTBEAT
from .fault import LEASE
from .fault import PUBLISH_TIMEOUT
from .fault import SESSION
from .fault import Fault
from .fault import FaultTarget

#: Most seconds that a worker waits before it tries to connect again.
RECONNECT = 30.0
#: Additional seconds for a busy machine.
BUSY = 10.0

#: Configuration of a trial; keys without ``QCONSUME_``.
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


def make_config(broker: str, **more: t.Any) -> dict[str, t.Any]:
    """Return the configuration of the deployment on a broker."""
    kafka = broker in {"kafka", "cluster"}
    return {**CONFIG, **(KAFKA if kafka else {"LEASE": LEASE}), **more}


@dataclass(frozen=True)
class Findings:
    """The effects of one fault."""

    confirmed: int
    refused: int
    lost: frozenset[int]
    twice: int
    #: The longest time without a handled message in seconds, including the fault.
    silence: float
    #: Seconds from the fault's end until a message was handled that was published then.
    back: float
    logs: str


def try_fault(
    deployment: Deployment, fault: Fault, broker: str, *, workers: int = 1
) -> Findings:
    """Provoke a fault while messages are published, and return its effects."""
    target, began = make_target(deployment, broker), time.time()
    for _ in range(workers):
        target.workers.append(deployment.fleet.start())
    with Publishing(deployment) as publishing:
        publishing.await_more(100)
        fault.apply(target, random.Random(1))
        over = time.monotonic()
        probe = target.send()
        wait_for(
            lambda: deployment.ledger.counted()[probe],
            RECONNECT + fault.detection + BUSY,
            message=lambda: f"consuming resumes\n{deployment.fleet.logs()[-4000:]}",
        )
        back = time.monotonic() - over
        publishing.await_more(100)
    lost = _find_lost(deployment, publishing.confirmed, wait=not fault.may_lose)
    _assert_alive(target)
    return Findings(
        len(publishing.confirmed),
        publishing.failed,
        lost,
        sum(count > 1 for count in deployment.ledger.counted().values()),
        # Ignore lines of a worker whose clock was set.
        longest_silence(
            [t for t in _list_times(deployment) if began <= t <= time.time()]
        ),
        back,
        deployment.fleet.logs(),
    )


def make_target(deployment: Deployment, broker: str) -> FaultTarget:
    """Return the objects that a fault may act on, without a proxy."""
    numbers = iter(range(1_000_000, 2_000_000))

    def send(**body: t.Any) -> int:
        n = next(numbers)
        wait_for(lambda: _try_publish(deployment, n, body), 60)
        return n

    return FaultTarget(
        broker=broker,
        server=deployment.server,
        vhost=deployment.vhost,
        database=deployment.database,
        proxies=(),
        fleet=deployment.fleet,
        consumers=deployment.consumers,
        send=send,
    )


def _list_times(deployment: Deployment) -> list[float]:
    return [line.at for line in deployment.ledger.lines()]


def _try_publish(deployment: Deployment, n: int, body: dict[str, t.Any]) -> bool:
    try:
        deployment.publish([n], **body)
    except BrokerError:
        return False
    return True


def _find_lost(
    deployment: Deployment, confirmed: list[int], *, wait: bool
) -> frozenset[int]:
    """Return the confirmed numbers that were not handled."""
    if wait:
        deployment.await_done(confirmed, timeout=120)
    else:
        # Messages in the queue will be handled; the fault lost the rest.
        wait_for(
            lambda: deployment.consumers.broker.depth("work") == 0, 60, interval=0.5
        )
        _await_rest(deployment)
    return frozenset(confirmed) - set(deployment.ledger.counted())


def _await_rest(deployment: Deployment) -> None:
    """Wait until no message has been handled for two leases."""
    seen, since = -1, time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        if (now := len(deployment.ledger.lines())) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 2 * LEASE

    wait_for(quiet, 120, interval=0.2)


def _assert_alive(target: FaultTarget) -> None:
    """Assert that all workers still run, and that a stop ends them cleanly."""
    for worker in target.workers:  # The last one may be starting.
        output = worker.output  # type: ignore[attr-defined]
        wait_for(lambda o=output: "consuming the queue" in o.read_text(), 90)
    codes = [worker.poll() for worker in target.workers]
    assert codes == [None] * len(codes), target.fleet.logs()[-3000:]
    assert [target.fleet.term(worker) for worker in target.workers] == [0] * len(codes)
