"""A run notices what is planted: the runner and the checker, on a real broker."""

from __future__ import annotations

import random
import signal

import pytest

from ..waiting import wait_for
from .conftest import MakeRun
from .fault import Fault
from .fault import Scene
from .record import RunRecord

pytestmark = pytest.mark.deadline(300)


def steal(scene: Scene, chance: random.Random) -> None:
    """Take messages out of the queue, behind everybody's back."""
    wait_for(lambda: scene.server.command("RPOP", "work"), 30, interval=0.0)


def double(scene: Scene, chance: random.Random) -> None:
    """Put one message into the queue a thousand times."""
    with scene.server.client() as client:
        body = wait_for(lambda: client.lindex("work", -1), 30, interval=0.0)
        client.lpush("work", *[body] * 1_000)


def nothing(scene: Scene, chance: random.Random) -> None:
    """Do nothing at all."""


def murder(scene: Scene, chance: random.Random) -> None:
    """Kill a worker without saying so."""
    scene.fleet.kill(scene.workers[0])


def halt(scene: Scene, chance: random.Random) -> None:
    """Halt a worker for good."""
    scene.workers[0].send_signal(signal.SIGSTOP)


def reject(scene: Scene, chance: random.Random) -> None:
    """Publish what becomes a dead letter, as it is told."""
    scene.send(do="reject")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost is not waited for in vain for long."""
    monkeypatch.setattr("tests.faults.run.GIVEN_UP", 10.0)
    monkeypatch.setattr("tests.faults.run.QUIET", 3.0)


def run(make_run: MakeRun, *faults: Fault, **plan: object) -> RunRecord:
    return make_run("redis", faults, seed=1, messages=500, workers=1, **plan)


def test_a_run_counts_what_it_did(make_run: MakeRun) -> None:
    record = run(
        make_run,
        Fault("nothing", nothing),
        Fault("dead letter", reject),
        Fault("theft that is told", steal, told_loss=True),
        Fault("nothing", nothing),
    )

    assert record.failures() == []
    assert record.messages >= 500
    assert [each.lost for each in record.faults] == [0, 0, 1, 0]
    assert (record.lost, record.duplicated, record.refused) == (1, 0, 0)
    assert (record.dead_told, record.dead) == (1, 0)
    assert sum(each.messages for each in record.faults) <= record.messages


def test_a_theft_and_copies_fail_the_run(make_run: MakeRun) -> None:
    record = run(
        make_run,
        Fault("nothing", nothing),
        Fault("theft", steal),
        Fault("copies", double),
        Fault("nothing", nothing),
    )

    assert [each.lost for each in record.faults] == [0, 1, 0, 0]
    assert record.faults[2].duplicated >= 1_000
    failures = " ".join(record.failures())
    assert "fault 1 (theft): 1 lost" in failures
    assert "fault 2 (copies)" in failures


def test_a_worker_that_ends_by_itself_fails_the_run(make_run: MakeRun) -> None:
    record = run(make_run, Fault("murder", murder))

    assert any("a worker ended by itself" in text for text in record.failures())


def test_a_worker_that_does_not_go_on_fails_the_run(make_run: MakeRun) -> None:
    record = run(make_run, Fault("halted", halt), allowed=2.0)

    assert record.faults[0].resumed is None
    assert any("did not go on consuming" in text for text in record.failures())
