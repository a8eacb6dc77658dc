"""Killed workers lose no message, and repeat few."""

from __future__ import annotations

import pytest

from ..waiting import wait_for
from .conftest import MakeDeployment
from .conftest import on_each_broker

SHORT = (2_000, 3)
LONG = (20_000, 10)

#: Messages that one worker holds: its prefetch, and one suspect.
MAX_HELD = 20 + 1
#: Messages settled between two commits on Kafka: by ten handlers of 5 ms, in 30 ms.
MAX_UNCOMMITTED = {"kafka": 60}


@pytest.mark.deadline(900)
@on_each_broker("sqlite")
@pytest.mark.parametrize(
    ("messages", "kills"), [SHORT, pytest.param(*LONG, marks=pytest.mark.long)]
)
def test_killed_workers_lose_nothing(
    make_deployment: MakeDeployment, broker: str, messages: int, kills: int
) -> None:
    deployment = make_deployment(broker)
    worker = deployment.fleet.start()
    deployment.publish(range(messages), seconds=0.005)
    for turn in range(1, kills + 1):
        share = messages * turn // (kills + 2)
        wait_for(lambda share=share: len(deployment.ledger.lines()) >= share, 300)
        deployment.fleet.kill(worker)
        worker = deployment.fleet.start()
    deployment.await_done(range(messages), timeout=300)

    doubles = sum(deployment.ledger.counted().values()) - messages
    print(f"{broker}: {messages} messages, {kills} kills, {doubles} handled twice")
    assert doubles <= kills * (MAX_HELD + MAX_UNCOMMITTED.get(broker, 0))
    assert deployment.dead() == []
