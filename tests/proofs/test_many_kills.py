"""Thirty SIGKILLs of random workers under load: nothing lost, and little twice."""

from __future__ import annotations

import random
import subprocess

import pytest

from ..waiting import wait_for
from .conftest import MakeStage
from .conftest import Stage
from .test_kills import HELD
from .test_kills import UNTOLD

MESSAGES = 50_000
KILLS = 30
WORKERS = 3


@pytest.mark.long
@pytest.mark.deadline(1800)
@pytest.mark.parametrize("broker", ["streams", "kafka"])
def test_thirty_kills_of_random_workers_lose_nothing(
    make_stage: MakeStage, broker: str
) -> None:
    chance = random.Random(1)
    stage = make_stage(broker)
    killed = set()
    workers = [stage.fleet.start() for _ in range(WORKERS)]
    stage.publish(range(MESSAGES), seconds=0.005)
    for turn in range(1, KILLS + 1):
        _await_share(stage, MESSAGES * turn // (KILLS + 2))
        victim = chance.randrange(WORKERS)
        killed.add(workers[victim].pid)
        stage.fleet.kill(workers[victim])
        workers[victim] = stage.fleet.start(ready=False)
    stage.await_done(range(MESSAGES), timeout=900)

    doubles = _doubles(stage)
    print(
        f"\n{broker}: {MESSAGES} messages, {KILLS} kills, {len(doubles)} handled twice"
        f" ({len(doubles) / KILLS:.1f} a kill), 0 lost,"
        f" {len(stage.dead())} dead letters"
    )
    # Whatever was handled twice was first handled by one that was killed.
    assert all(pids & killed for pids in doubles.values())
    assert len(doubles) <= KILLS * (HELD + UNTOLD.get(broker, 0))
    assert stage.dead() == []
    assert _stopped(stage, workers) == [0] * WORKERS


def _await_share(stage: Stage, share: int) -> None:
    wait_for(
        lambda: len(stage.ledger.lines()) >= share,
        600,
        interval=0.3,
        message=lambda: (
            f"{len(stage.ledger.lines())} of {share}\n{stage.fleet.logs()[-3000:]}"
        ),
    )


def _doubles(stage: Stage) -> dict[int, set[int]]:
    """What was handled more than once, and the processes that did it."""
    found: dict[int, list[int]] = {}
    for line in stage.ledger.lines():
        found.setdefault(line.n, []).append(line.pid)
    return {n: set(pids) for n, pids in found.items() if len(pids) > 1}


def _stopped(stage: Stage, workers: list[subprocess.Popen[bytes]]) -> list[int]:
    return [stage.fleet.term(worker) for worker in workers]
