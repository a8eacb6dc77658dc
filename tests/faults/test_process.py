"""A worker that was halted for too long: what it settles afterwards does not count."""

from __future__ import annotations

import signal

import pytest

from ..proofs.conftest import MakeStage
from ..waiting import wait_for
from .trial import config_of

#: What the log of the halted one says: that it was cut off, or what it has lost.
SAID = (
    "lost the connection",
    "their leases had ended",
    "another member may handle what is being handled here",
)


@pytest.mark.deadline(300)
@pytest.mark.parametrize("broker", ["quorum", "redis", "streams", "kafka"])
def test_what_a_halted_worker_settles_late_does_not_count(
    make_stage: MakeStage, broker: str
) -> None:
    stage = make_stage(broker, **config_of(broker))
    halted = stage.fleet.start()
    stage.publish(range(5), seconds=1)
    wait_for(lambda: len(stage.ledger.counted("start")) == 5, 30)
    halted.send_signal(signal.SIGSTOP)
    try:
        other = stage.fleet.start()
        stage.await_done(range(5), timeout=90)
    finally:
        halted.send_signal(signal.SIGCONT)
    # Each is done by both; the second time it was somebody else's by then.
    wait_for(lambda: set(stage.ledger.counted().values()) == {2}, 60)
    stage.publish(range(5, 50))
    stage.await_done(range(5, 50))

    assert {line.pid for line in stage.ledger.lines() if line.n < 5} == {
        halted.pid,
        other.pid,
    }
    wait_for(lambda: any(text in halted.output.read_text() for text in SAID), 20)
    assert [stage.fleet.term(each) for each in (halted, other)] == [0, 0]
    assert stage.consumers.broker.depth("work") == 0
    assert stage.consumers.broker.depth("work.suspects") == 0
    assert stage.dead() == []
    assert {stage.ledger.counted()[n] for n in range(5, 50)} == {1}
