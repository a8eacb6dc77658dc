"""Thirty SIGKILLs of random workers under load lose no message, and repeat few."""

from __future__ import annotations

import random
import subprocess

import pytest

from ..waiting import wait_for
from .conftest import Deployment
from .conftest import MakeDeployment
from .test_kills import MAX_HELD
from .test_kills import MAX_UNCOMMITTED

MESSAGES = 50_000
KILLS = 30
WORKERS = 3


@pytest.mark.long
@pytest.mark.deadline(1800)
@pytest.mark.parametrize("broker", ["streams", "kafka", "postgresql", "sqlite"])
def test_thirty_kills_of_random_workers_lose_nothing(
    make_deployment: MakeDeployment, broker: str
) -> None:
    chance = random.Random(1)
    deployment = make_deployment(broker)
    killed = set()
    workers = [deployment.fleet.start() for _ in range(WORKERS)]
    deployment.publish(range(MESSAGES), seconds=0.005)
    for turn in range(1, KILLS + 1):
        _await_share(deployment, MESSAGES * turn // (KILLS + 2))
        victim = chance.randrange(WORKERS)
        killed.add(workers[victim].pid)
        deployment.fleet.kill(workers[victim])
        workers[victim] = deployment.fleet.start(ready=False)
    deployment.await_done(range(MESSAGES), timeout=900)

    doubles = _doubles(deployment)
    print(
        f"\n{broker}: {MESSAGES} messages, {KILLS} kills, {len(doubles)} handled twice"
        f" ({len(doubles) / KILLS:.1f} a kill), 0 lost,"
        f" {len(deployment.dead())} dead letters"
    )
    # A killed worker handled each repeated message first.
    assert all(pids & killed for pids in doubles.values())
    assert len(doubles) <= KILLS * (MAX_HELD + MAX_UNCOMMITTED.get(broker, 0))
    assert deployment.dead() == []
    assert _stopped(deployment, workers) == [0] * WORKERS


def _await_share(deployment: Deployment, share: int) -> None:
    wait_for(
        lambda: len(deployment.ledger.lines()) >= share,
        600,
        interval=0.3,
        message=lambda: (
            f"{len(deployment.ledger.lines())} of {share}\n"
            f"{deployment.fleet.logs()[-3000:]}"
        ),
    )


def _doubles(deployment: Deployment) -> dict[int, set[int]]:
    """Return the repeated numbers, with the processes that handled them."""
    found: dict[int, list[int]] = {}
    for line in deployment.ledger.lines():
        found.setdefault(line.n, []).append(line.pid)
    return {n: set(pids) for n, pids in found.items() if len(pids) > 1}


def _stopped(
    deployment: Deployment, workers: list[subprocess.Popen[bytes]]
) -> list[int]:
    return [deployment.fleet.term(worker) for worker in workers]
