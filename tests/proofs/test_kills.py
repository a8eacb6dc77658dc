"""Killed workers: nothing lost, few doubles, and killers are found out."""

from __future__ import annotations

import pytest

from ..waiting import wait_for
from .conftest import MakeStage

SHORT = (2_000, 3)
LONG = (20_000, 10)

#: What one worker holds: its prefetch in the queue, and one in the lane.
HELD = 20 + 1
#: What it settles between two commits, on Kafka: ten handlers of 5 ms do, in 30 ms.
UNTOLD = {"kafka": 60}


@pytest.mark.deadline(900)
@pytest.mark.parametrize("broker", ["quorum", "classic", "redis", "streams", "kafka"])
@pytest.mark.parametrize(
    ("messages", "kills"), [SHORT, pytest.param(*LONG, marks=pytest.mark.long)]
)
def test_killed_workers_lose_nothing(
    make_stage: MakeStage, broker: str, messages: int, kills: int
) -> None:
    stage = make_stage(broker)
    worker = stage.fleet.start()
    stage.publish(range(messages), seconds=0.005)
    for turn in range(1, kills + 1):
        share = messages * turn // (kills + 2)
        wait_for(lambda share=share: len(stage.ledger.lines()) >= share, 300)
        stage.fleet.kill(worker)
        worker = stage.fleet.start()
    stage.await_done(range(messages), timeout=300)

    doubles = sum(stage.ledger.counted().values()) - messages
    print(f"{broker}: {messages} messages, {kills} kills, {doubles} handled twice")
    assert doubles <= kills * (HELD + UNTOLD.get(broker, 0))
    assert stage.dead() == []


@pytest.mark.deadline(300)
@pytest.mark.parametrize("broker", ["quorum", "classic", "redis", "streams", "kafka"])
def test_a_killer_is_a_dead_letter_instead_of_a_fourth_start(
    make_stage: MakeStage, broker: str
) -> None:
    """Its neighbours are handled, and none of them is a dead letter."""
    stage = make_stage(broker)
    neighbours = range(1, 101)
    stage.publish(range(1, 51))
    stage.publish([0], do="kill")
    stage.publish(range(51, 101))
    worker = stage.fleet.start(ready=False)

    def settled() -> bool:
        nonlocal worker
        if worker.poll() is not None:
            worker = stage.fleet.start(ready=False)
        return len(stage.dead()) == 1 and set(stage.ledger.counted()) == {*neighbours}

    wait_for(settled, 120, interval=0.2, message=lambda: stage.fleet.logs()[-3000:])

    assert stage.ledger.counted("start")[0] == 3
    (dead,) = stage.dead()
    assert "QCONSUME_DELIVERY_LIMIT" in dead.headers["x-qconsume-reason"]
    stage.fleet.term(worker)
