"""Stopping workers loses nothing, doubles nothing and charges nobody an attempt."""

from __future__ import annotations

import pytest

from ..waiting import wait_for
from .conftest import MakeStage

SHORT = (2_000, 3)
LONG = (20_000, 10)


@pytest.mark.deadline(900)
@pytest.mark.parametrize("broker", ["quorum", "classic", "redis", "streams", "kafka"])
@pytest.mark.parametrize(
    ("messages", "stops"), [SHORT, pytest.param(*LONG, marks=pytest.mark.long)]
)
def test_a_stopped_worker_loses_and_doubles_nothing(
    make_stage: MakeStage, broker: str, messages: int, stops: int
) -> None:
    stage = make_stage(broker)
    worker = stage.fleet.start()
    stage.publish(range(messages), seconds=0.005)
    codes = []
    for turn in range(1, stops + 1):
        share = messages * turn // (stops + 2)
        wait_for(lambda share=share: len(stage.ledger.lines()) >= share, 300)
        codes.append(stage.fleet.term(worker))
        worker = stage.fleet.start()
    stage.await_done(range(messages), timeout=300)
    codes.append(stage.fleet.term(worker))

    done = stage.ledger.counted()
    print(f"{broker}: {messages} messages, {stops} stops, exit codes {codes}")
    assert set(codes) == {0}
    assert set(done.values()) == {1}
    assert {line.attempt for line in stage.ledger.lines()} == {1}
    assert stage.dead() == []


@pytest.mark.parametrize("broker", ["quorum", "redis", "streams", "kafka"])
def test_handlers_that_outlast_the_deadline_are_handed_on_uncharged(
    make_stage: MakeStage, broker: str
) -> None:
    stage = make_stage(broker, SHUTDOWN_TIMEOUT=0.2)
    worker = stage.fleet.start()
    stage.publish([1], do="never")
    wait_for(lambda: stage.ledger.lines("start"))

    assert stage.fleet.term(worker) == 3
    stage.fleet.start()
    wait_for(lambda: len(stage.ledger.lines("start")) == 2, 30)
    assert [line.attempt for line in stage.ledger.lines("start")] == [1, 1]
