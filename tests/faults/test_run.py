"""A run on a real broker notices losses, copies and dead workers."""

from __future__ import annotations

import random
import signal

import pytest

from ..waiting import wait_for
from .conftest import MakeRun
from .fault import Fault
from .fault import FaultTarget
from .record import RunRecord

pytestmark = pytest.mark.deadline(300)


def remove(target: FaultTarget, chance: random.Random) -> None:
    """Remove a message from the queue without a consumer."""
    wait_for(lambda: target.server.command("RPOP", "work"), 30, interval=0.0)


def copy(target: FaultTarget, chance: random.Random) -> None:
    """Put one message into the queue a thousand times."""
    with target.server.client() as client:
        body = wait_for(lambda: client.lindex("work", -1), 30, interval=0.0)
        client.lpush("work", *[body] * 1_000)


def nothing(target: FaultTarget, chance: random.Random) -> None:
    """Do nothing."""


def kill_worker(target: FaultTarget, chance: random.Random) -> None:
    """Kill a worker without replacing it."""
    target.fleet.kill(target.workers[0])


def halt(target: FaultTarget, chance: random.Random) -> None:
    """Halt a worker for the rest of the run."""
    target.workers[0].send_signal(signal.SIGSTOP)


def reject(target: FaultTarget, chance: random.Random) -> None:
    """Publish a message whose handler rejects it."""
    target.send(do="reject")


@pytest.fixture(autouse=True)
def shorten_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time after which missing messages count as lost."""
    monkeypatch.setattr("tests.faults.run.GIVEN_UP_SECONDS", 10.0)
    monkeypatch.setattr("tests.faults.run.QUIET_SECONDS", 3.0)


def run(make_run: MakeRun, *faults: Fault, **plan: object) -> RunRecord:
    return make_run("redis", faults, seed=1, messages=500, workers=1, **plan)


def test_a_run_counts_messages_and_losses(make_run: MakeRun) -> None:
    record = run(
        make_run,
        Fault("nothing", nothing),
        Fault("dead letter", reject),
        Fault("removal that may lose", remove, may_lose=True),
        Fault("nothing", nothing),
    )

    assert record.failures() == []
    assert record.messages >= 500
    assert [each.lost for each in record.faults] == [0, 0, 1, 0]
    assert (record.lost, record.duplicated, record.refused) == (1, 0, 0)
    assert (record.dead_expected, record.dead) == (1, 0)
    assert sum(each.messages for each in record.faults) <= record.messages


def test_a_removed_and_a_copied_message_fail_the_run(make_run: MakeRun) -> None:
    record = run(
        make_run,
        Fault("nothing", nothing),
        Fault("removal", remove),
        Fault("copies", copy),
        Fault("nothing", nothing),
    )

    assert [each.lost for each in record.faults] == [0, 1, 0, 0]
    assert record.faults[2].duplicated >= 1_000
    failures = " ".join(record.failures())
    assert "fault 1 (removal): 1 lost" in failures
    assert "fault 2 (copies)" in failures


def test_a_worker_that_ends_by_itself_fails_the_run(make_run: MakeRun) -> None:
    record = run(make_run, Fault("worker killed", kill_worker))

    assert any("a worker ended by itself" in text for text in record.failures())


def test_a_worker_that_does_not_resume_fails_the_run(make_run: MakeRun) -> None:
    record = run(make_run, Fault("halted", halt), allowed=2.0)

    assert record.faults[0].resumed is None
    assert any("did not resume consuming" in text for text in record.failures())
