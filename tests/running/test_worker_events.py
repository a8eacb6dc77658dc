"""The events of a worker and its messages, as a listener is told them."""

from __future__ import annotations

import typing as t

import gevent
import pytest
from gevent.event import Event

from flask_qconsume import Ack
from flask_qconsume import Drop
from flask_qconsume import HandlerTimeout
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import current_message
from flask_qconsume.broker.link import Link
from flask_qconsume.running import processing
from tests.listeners import Recorder
from tests.listeners import make_raisers

from ..waiting import hang
from ..waiting import wait_for
from .conftest import Bench


@pytest.fixture
def recorder(bench: Bench) -> Recorder:
    made = Recorder()
    bench.consumers.events.add(made)
    return made


def handle(body: str) -> None:
    """Do what the body says."""
    if body == "drop":
        raise Drop("old")
    if body == "dead":
        raise Reject("no")
    if body == "fail" and current_message.attempt == 1:
        raise ValueError("again")


def test_a_messages_life_is_told_from_its_publishing_to_its_settlement(
    bench: Bench, recorder: Recorder
) -> None:
    bench.qconsume.add_consumer("billing", handle, name="bill")
    worker = bench.start()
    wait_for(lambda: recorder("connected"))
    bench.publish("billing", "fail")
    wait_for(lambda: recorder("settled"))
    assert worker.stop()

    outcomes = [(each[-1].outcome, each[-1].error) for each in recorder("handled")]
    assert [type(outcome) for outcome, _ in outcomes] == [Retry, Ack]
    assert recorder.names == [
        *("worker_started", "connected", "publishing", "published", "received"),
        *("handling", "failed", "handled", "decided"),
        *("handling", "handled", "decided", "settling", "settled"),
        *("worker_stopping", "worker_stopped"),
    ]
    assert recorder("failed", "decided", "settled", "worker_stopped") == [
        ("failed", 1, ValueError),
        ("decided", "bill", 1, Retry),
        ("decided", "bill", 2, Ack),
        ("settled", "bill", "ack", 1, [None]),
        ("worker_stopped", worker, True),
    ]


@pytest.mark.parametrize(
    ("body", "outcome", "action"),
    [("good", Ack, "ack"), ("drop", Drop, "ack"), ("dead", Reject, "dead-letter")],
)
def test_each_outcome_is_decided_and_settled(
    bench: Bench, recorder: Recorder, body: str, outcome: type, action: str
) -> None:
    bench.qconsume.add_consumer("billing", handle, name="bill")
    bench.start()
    bench.publish("billing", body)
    wait_for(lambda: recorder("settled"))

    assert recorder("decided", "settled", "failed") == [
        ("decided", "bill", 1, outcome),
        ("settled", "bill", action, 1, [None]),
    ]


def test_an_interrupted_handling_ends_without_a_result(
    bench: Bench, recorder: Recorder
) -> None:
    bench.qconsume.add_consumer("billing", lambda body: hang(), name="bill")
    worker = bench.start()
    bench.publish("billing")
    wait_for(lambda: worker.busy == 1)
    worker.stop(timeout=0)

    assert recorder("handled") == [("handled", "bill", 1, None)]
    assert recorder("decided", "failed", "settling") == []
    assert recorder("worker_stopped") == [("worker_stopped", worker, False)]


def test_an_abandoned_handler_is_decided_once(
    bench: Bench, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "OVERDUE_SECONDS", 0.05)
    monkeypatch.setattr(Link, "keep_alive_interval", 0.05)
    release = Event()

    @bench.qconsume.consumer("billing", timeout=0.05, retry={"max_attempts": 1})
    def bill(order: t.Any) -> None:
        while not release.is_set():
            try:
                release.wait()
            except HandlerTimeout:
                continue

    worker = bench.start()
    bench.publish("billing")
    wait_for(lambda: recorder("decided"))
    release.set()
    wait_for(lambda: recorder("handled"))
    assert worker.stop()
    assert recorder("decided") == [("decided", "bill", 1, Reject)]


@pytest.mark.parametrize("error", [ValueError, SystemExit, gevent.GreenletExit])
def test_listeners_that_raise_change_nothing(
    bench: Bench, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    for listener in make_raisers(error):
        bench.consumers.events.add(listener)
    recorder = Recorder()
    bench.consumers.events.add(recorder)
    bench.qconsume.add_consumer("billing", handle, name="bill")
    worker = bench.start()
    wait_for(lambda: recorder("connected"))
    bodies = ["good", "drop", "dead", "fail"]
    ids = [bench.publish("billing", body) for body in bodies]
    wait_for(lambda: sum(each[3] for each in recorder("settled")) == 4)

    assert worker.stop()
    assert [each.message.id for each in bench.dead("billing")] == [ids[2]]
    assert bench.consumers.broker.depth("billing") == 0
    assert [each[2:] for each in recorder("decided")] == [
        *((1, Ack), (1, Drop), (1, Reject), (1, Retry), (2, Ack))
    ]
    assert "raised an exception, which changes nothing else" in caplog.text
