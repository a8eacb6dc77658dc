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
from flask_qconsume import signals
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.handling.events import Events
from flask_qconsume.running import connection_loop
from flask_qconsume.running import processing
from flask_qconsume.running import settler
from flask_qconsume.running.backoff import Backoff
from flask_qconsume.running.health.problem_events import ProblemEvents
from flask_qconsume.running.health.verdict import Problem
from flask_qconsume.running.subscription import Subscription
from flask_qconsume.running.suspects import forward_to_suspects
from tests.listeners import Recorder
from tests.listeners import make_raisers

from ..waiting import hang
from ..waiting import wait_for
from .conftest import AppWithWorkers
from .outage import play_outages
from .outage import publish_killer


@pytest.fixture
def recorder(worker_app: AppWithWorkers) -> Recorder:
    made = Recorder()
    worker_app.consumers.events.add(made)
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
    worker_app: AppWithWorkers, recorder: Recorder
) -> None:
    worker_app.qconsume.add_consumer("billing", handle, name="bill")
    worker = worker_app.start()
    wait_for(lambda: recorder("connected"))
    worker_app.publish("billing", "fail")
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
    worker_app: AppWithWorkers,
    recorder: Recorder,
    body: str,
    outcome: type,
    action: str,
) -> None:
    worker_app.qconsume.add_consumer("billing", handle, name="bill")
    worker_app.start()
    worker_app.publish("billing", body)
    wait_for(lambda: recorder("settled"))

    assert recorder("decided", "settled", "failed") == [
        ("decided", "bill", 1, outcome),
        ("settled", "bill", action, 1, [None]),
    ]


def test_an_interrupted_handling_ends_without_a_result(
    worker_app: AppWithWorkers, recorder: Recorder
) -> None:
    worker_app.qconsume.add_consumer("billing", lambda body: hang(), name="bill")
    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.busy == 1)
    worker.stop(timeout=0)

    assert recorder("handled") == [("handled", "bill", 1, None)]
    assert recorder("decided", "failed", "settling") == []
    assert recorder("worker_stopped") == [("worker_stopped", worker, False)]


def test_an_abandoned_handler_is_decided_once(
    worker_app: AppWithWorkers, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "OVERDUE_SECONDS", 0.05)
    monkeypatch.setattr(Link, "keep_alive_interval", 0.05)
    release = Event()

    @worker_app.qconsume.consumer("billing", timeout=0.05, retry={"max_attempts": 1})
    def bill(order: t.Any) -> None:
        while not release.is_set():
            try:
                release.wait()
            except HandlerTimeout:
                continue

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: recorder("decided"))
    release.set()
    wait_for(lambda: recorder("handled"))
    assert worker.stop()
    assert recorder("decided", "failed") == [
        ("decided", "bill", 1, Reject),
        ("failed", 1, HandlerTimeout),
    ]


def test_an_exception_thrown_in_before_the_handler_is_told_as_a_failure(
    worker_app: AppWithWorkers, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspect waits before its handler; other code may throw into its greenlet."""
    waiting: list[gevent.Greenlet] = []

    def wait(self: Subscription) -> None:
        waiting.append(gevent.getcurrent())
        hang()

    monkeypatch.setattr(Subscription, "wait_for_forwards", wait)
    worker_app.qconsume.add_consumer("billing", handle, name="bill")
    broker = play_outages(worker_app)
    plan = worker_app.consumers.topology.queue("billing")
    worker_app.publish("billing", "good")
    link: t.Any = broker.connect(plan, Lane.MAIN, 1)
    link.forward([forward_to_suspects(link.read(1)[0], deaths=0)])
    link.close()
    worker = worker_app.start()
    wait_for(lambda: waiting)
    waiting[0].kill(OSError("thrown"), block=False)
    wait_for(lambda: recorder("decided"))
    assert recorder("failed", "decided") == [
        ("failed", 1, OSError),
        ("decided", "bill", 1, Retry),
    ]
    worker.stop(timeout=0)


def test_what_was_handled_while_the_broker_was_away_is_lost_and_settled_later(
    worker_app: AppWithWorkers, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_loop, "Backoff", lambda: Backoff(0.01, 0.05))
    go = Event()
    worker_app.qconsume.add_consumer("billing", lambda body: go.wait(), name="bill")
    broker = play_outages(worker_app)
    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.busy == 1)
    recorder.told.clear()
    broker.down()
    go.set()
    wait_for(lambda: recorder("lost"))
    broker.up()
    wait_for(lambda: recorder("settled") and worker.ready)
    assert worker.stop()

    told = [name for name in recorder.names if name not in PROBLEMS]
    first = told.index
    assert first("disconnected") < first("connected") < first("received")
    assert first("handled") < first("decided") < first("lost") < first("settling")
    assert recorder("lost", "decided", "settled") == [
        ("decided", "bill", 1, Ack),
        ("lost", "bill", 1),
        ("settled", "bill", "ack", 1, [None]),
    ]
    queues = {"bill": "billing", "bill (suspects)": "billing.suspects"}
    assert {each[1:] for each in recorder("disconnected")} == {*queues.items()}


PROBLEMS = {"problem_began", "problem_ended"}


def test_a_suspect_and_its_death_are_told(
    worker_app: AppWithWorkers, recorder: Recorder
) -> None:
    """The message has killed a process as a suspect, and now kills a second one."""
    worker_app.qconsume.add_consumer("billing", handle, name="bill")
    publish_killer(worker_app, "billing")
    worker_app.start()
    wait_for(lambda: recorder("settled"))
    assert recorder("suspected", "decided") == [("suspected", "bill", True)]
    assert recorder("settled") == [("settled", "bill", "dead-letter", 1, [None])]


def test_a_message_that_kills_its_processes_is_rejected_without_an_attempt(
    worker_app: AppWithWorkers,
) -> None:
    worker_app.qconsume.add_consumer("billing", handle, name="bill")
    published = publish_killer(worker_app, "billing")
    heard: list[t.Any] = []

    def hear(sender: t.Any, message: t.Any, outcome: t.Any, **extra: t.Any) -> None:
        heard.append((sender, message.id, current_message.id, outcome, extra["error"]))

    with signals.message_rejected.connected_to(hear, worker_app.app):
        worker_app.start()
        wait_for(lambda: heard)
    ((sender, given, current, outcome, error),) = heard
    assert (sender, given, current) == (worker_app.app, published, published)
    assert "its process died 2 times" in outcome.reason
    assert error is None


def test_a_refused_forward_is_told_with_its_reason_and_once_more(
    worker_app: AppWithWorkers, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler, "Backoff", lambda: Backoff(0.01, 0.02))
    worker_app.qconsume.add_consumer("billing", handle, name="bill")
    broker = play_outages(worker_app)
    broker.is_full = True
    worker = worker_app.start()
    worker_app.publish("billing", "dead")
    wait_for(lambda: len(recorder("settled")) > 1)
    broker.is_full = False
    wait_for(lambda: recorder("settled")[-1][-1] == [None])
    assert worker.stop()

    *refused, _ = recorder("settled")
    assert {each[1:3] for each in recorder("settled")} == {("bill", "dead-letter")}
    assert {str(each[-1][0]) for each in refused} == {"the disk is full"}
    assert len(recorder("decided")) == 1


def test_problems_are_told_once_when_they_begin_and_end() -> None:
    events, recorder, now = Events(), Recorder(), [0.0]
    events.add(recorder)
    problems = ProblemEvents(events, lambda: now[0])
    stuck = Problem("stuck", "bill", "Stuck for 3 s.")
    problems.update([stuck, Problem("stopping", "", "Stopping.", logged=False)])
    now[0] = 5.0
    problems.update([Problem("stuck", "bill", "Stuck for 8 s.")])
    problems.update([])
    assert recorder.told == [
        ("problem_began", "stuck"),
        ("problem_began", "stopping"),
        ("problem_ended", "stopping"),
        ("problem_ended", "stuck"),
    ]


def test_a_worker_tells_that_it_is_disconnected(
    worker_app: AppWithWorkers, recorder: Recorder
) -> None:
    worker_app.qconsume.add_consumer("billing", handle, name="bill")
    broker = play_outages(worker_app)
    broker.down()
    worker_app.start()
    wait_for(lambda: ("problem_began", "disconnected") in recorder.told)
    broker.up()
    wait_for(lambda: ("problem_ended", "disconnected") in recorder.told)


@pytest.mark.parametrize("error", [ValueError, SystemExit, gevent.GreenletExit])
def test_listeners_that_raise_change_nothing(
    worker_app: AppWithWorkers,
    error: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for listener in make_raisers(error):
        worker_app.consumers.events.add(listener)
    recorder = Recorder()
    worker_app.consumers.events.add(recorder)
    worker_app.qconsume.add_consumer("billing", handle, name="bill")
    worker = worker_app.start()
    wait_for(lambda: recorder("connected"))
    bodies = ["good", "drop", "dead", "fail"]
    ids = [worker_app.publish("billing", body) for body in bodies]
    wait_for(lambda: sum(each[3] for each in recorder("settled")) == 4)

    assert worker.stop()
    assert [each.message.id for each in worker_app.dead("billing")] == [ids[2]]
    assert worker_app.consumers.broker.depth("billing") == 0
    assert [each[2:] for each in recorder("decided")] == [
        *((1, Ack), (1, Drop), (1, Reject), (1, Retry), (2, Ack))
    ]
    assert "raised an exception, which changes nothing else" in caplog.text
