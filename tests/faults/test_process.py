"""The settlements of a worker that was halted for too long do not count."""

from __future__ import annotations

import signal

import pytest

from ..proofs.conftest import MakeDeployment
from ..proofs.conftest import on_each_broker
from ..waiting import wait_for
from .trial import make_config

#: Texts in the log of the halted worker about its lost connection or messages.
LOG_TEXTS = (
    "lost the connection",
    "their leases had ended",
    "another member may handle what is being handled here",
)


@pytest.mark.deadline(300)
@on_each_broker("postgresql", but=("classic",))
def test_what_a_halted_worker_settles_late_does_not_count(
    make_deployment: MakeDeployment, broker: str
) -> None:
    deployment = make_deployment(broker, **make_config(broker))
    halted = deployment.fleet.start()
    deployment.publish(range(5), seconds=1)
    wait_for(lambda: len(deployment.ledger.counted("start")) == 5, 30)
    halted.send_signal(signal.SIGSTOP)
    try:
        other = deployment.fleet.start()
        deployment.await_done(range(5), timeout=90)
    finally:
        halted.send_signal(signal.SIGCONT)
    # Both workers handle each message; the halted one no longer owns it by then.
    wait_for(lambda: set(deployment.ledger.counted().values()) == {2}, 60)
    deployment.publish(range(5, 50))
    deployment.await_done(range(5, 50))

    assert {line.pid for line in deployment.ledger.lines() if line.n < 5} == {
        halted.pid,
        other.pid,
    }
    wait_for(lambda: any(text in halted.output.read_text() for text in LOG_TEXTS), 20)
    assert [deployment.fleet.term(each) for each in (halted, other)] == [0, 0]
    assert deployment.consumers.broker.depth("work") == 0
    assert deployment.consumers.broker.depth("work.suspects") == 0
    assert deployment.dead() == []
    assert {deployment.ledger.counted()[n] for n in range(5, 50)} == {1}
