"""The broker holds retries: they are durable, on time, and block no other message."""

from __future__ import annotations

import time

import pytest

from ..waiting import wait_for
from .conftest import Deployment
from .conftest import MakeDeployment
from .conftest import on_each_broker

#: Seconds by which a delay may be late, in addition to its step, on a busy machine.
LATE = 2.0
#: The same after a kill: Kafka reassigns a dead worker's partitions only after its
#: session has ended.
TAKEN_OVER = {"kafka": LATE + 3.0}


def _delay(deployment: Deployment, n: int) -> float:
    """Return the seconds between the first and the second attempt."""
    starts = [line for line in deployment.ledger.lines("start") if line.n == n]
    assert [line.attempt for line in starts[:2]] == [1, 2]
    return starts[1].at - starts[0].at


def _policy(seconds: float) -> dict[str, float]:
    return {"min_delay": seconds, "max_delay": seconds, "jitter": 0}


@pytest.mark.deadline(200)
@on_each_broker("sqlite")
@pytest.mark.parametrize(
    ("short", "long"), [(2, 6), pytest.param(5, 30, marks=pytest.mark.long)]
)
def test_a_short_retry_is_not_behind_a_long_one_and_both_survive_a_kill(
    make_deployment: MakeDeployment, broker: str, short: int, long: int
) -> None:
    deployment = make_deployment(broker, RETRY=_policy(long), CONCURRENCY=1, PREFETCH=1)
    worker = deployment.fleet.start()
    deployment.publish([1], do="fail")
    wait_for(lambda: 1 in deployment.ledger.counted("start"))
    if broker != "kafka":  # Kafka's depth includes delayed messages.
        wait_for(lambda: deployment.consumers.broker.depth("work") == 0)
    deployment.fleet.term(worker)
    deployment.fleet.config["RETRY"] = _policy(short)
    worker = deployment.fleet.start()
    deployment.publish([2], do="fail")
    # With a prefetch of one, a third message shows that no slot is taken by the wait.
    wait_for(lambda: 2 in deployment.ledger.counted("start"))
    deployment.publish([3])
    deployment.await_done([3], timeout=short)
    deployment.fleet.kill(worker)
    deployment.fleet.start()
    back = time.time()
    deployment.await_done([1, 2], timeout=long + 30)

    # Behind the long one, the short one may be late by its own delay.
    for n, seconds, behind in (1, long, 0), (2, short, 2):
        first = next(
            line.at for line in deployment.ledger.lines("start") if line.n == n
        )
        # No retry comes while no worker runs: it is late from when one runs again.
        latest = max(seconds, back - first) + TAKEN_OVER.get(broker, LATE) + behind
        assert seconds <= _delay(deployment, n) < latest
    assert {line.attempt for line in deployment.ledger.lines() if line.n < 3} == {2}


@pytest.mark.deadline(600)
@pytest.mark.parametrize(
    "broker",
    [
        "quorum",
        "classic",
        "redis",
        "streams",
        pytest.param("kafka", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(
    "messages", [300, pytest.param(10_000, marks=pytest.mark.long)]
)
def test_steady_retries_lose_none(
    make_deployment: MakeDeployment, broker: str, messages: int
) -> None:
    """Each message fails twice, with delays of one to two seconds."""
    policy = {"min_delay": 1, "factor": 1, "jitter": 1}
    deployment = make_deployment(broker, RETRY=policy, CONCURRENCY=50)
    deployment.fleet.start()
    for at in range(0, messages, 50):
        deployment.publish(range(at, at + 50), do="fail", times=2)
        wait_for(lambda at=at: len(deployment.ledger.counted("start")) >= at)
    deployment.await_done(range(messages), timeout=300)

    assert set(deployment.ledger.counted().values()) == {1}
    assert {line.attempt for line in deployment.ledger.lines()} == {3}
    assert deployment.dead() == []
