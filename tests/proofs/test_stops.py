"""Stopping workers loses no message, repeats none and counts no attempt."""

from __future__ import annotations

import pytest

from ..waiting import wait_for
from .conftest import MakeDeployment
from .conftest import on_each_broker

SHORT = (2_000, 3)
LONG = (20_000, 10)


@pytest.mark.deadline(900)
@on_each_broker("postgresql")
@pytest.mark.parametrize(
    ("messages", "stops"), [SHORT, pytest.param(*LONG, marks=pytest.mark.long)]
)
def test_a_stopped_worker_loses_and_doubles_nothing(
    make_deployment: MakeDeployment, broker: str, messages: int, stops: int
) -> None:
    deployment = make_deployment(broker)
    worker = deployment.fleet.start()
    deployment.publish(range(messages), seconds=0.005)
    codes = []
    for turn in range(1, stops + 1):
        share = messages * turn // (stops + 2)
        wait_for(lambda share=share: len(deployment.ledger.lines()) >= share, 300)
        codes.append(deployment.fleet.term(worker))
        worker = deployment.fleet.start()
    deployment.await_done(range(messages), timeout=300)
    codes.append(deployment.fleet.term(worker))

    done = deployment.ledger.counted()
    print(f"{broker}: {messages} messages, {stops} stops, exit codes {codes}")
    assert set(codes) == {0}
    assert set(done.values()) == {1}
    assert {line.attempt for line in deployment.ledger.lines()} == {1}
    assert deployment.dead() == []


@on_each_broker("postgresql", but=("classic",))
def test_handlers_that_outlast_the_deadline_are_handed_on_uncharged(
    make_deployment: MakeDeployment, broker: str
) -> None:
    deployment = make_deployment(broker, SHUTDOWN_TIMEOUT=0.2)
    worker = deployment.fleet.start()
    deployment.publish([1], do="never")
    wait_for(lambda: deployment.ledger.lines("start"))

    assert deployment.fleet.term(worker) == 3
    deployment.fleet.start()
    wait_for(lambda: len(deployment.ledger.lines("start")) == 2, 30)
    assert [line.attempt for line in deployment.ledger.lines("start")] == [1, 1]
