"""The worker's life on the memory broker: start, handle, retry, stop."""

from __future__ import annotations

import datetime
import subprocess
import sys
import typing as t

import gevent
import pytest
from gevent.event import Event

from flask_qconsume import HandlerTimeout
from flask_qconsume import Interrupted
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import UnknownConsumer
from flask_qconsume import WorkerError
from flask_qconsume import current_message
from flask_qconsume import signals
from flask_qconsume.broker.link import Link
from flask_qconsume.running import processing

from ..waiting import hang
from ..waiting import wait_for
from .conftest import AppWithWorkers


def test_a_published_message_is_handled_in_a_few_turns_of_the_loop(
    worker_app: AppWithWorkers,
) -> None:
    """Event-driven: kombu's memory transport would poll once a second."""
    handled: list[int] = []

    @worker_app.qconsume.consumer("billing", routing_key="order.created")
    def bill(number: int) -> None:
        handled.append(number)

    worker_app.start()
    for number in range(20):
        gevent.idle()  # All of them wait again.
        worker_app.publish("order.created", number)
        for _ in range(20):
            gevent.sleep(0)
        assert handled == list(range(number + 1))


def test_messages_are_handled_concurrently_up_to_the_concurrency(
    worker_app: AppWithWorkers,
) -> None:
    most = running = 0
    go = Event()

    @worker_app.qconsume.consumer("billing", concurrency=3)
    def bill(order: t.Any) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        go.wait()
        running -= 1

    worker = worker_app.start()
    for _ in range(9):
        worker_app.publish("billing")
    wait_for(lambda: worker.busy == 3)
    gevent.idle()
    go.set()
    wait_for(lambda: worker.busy == 0 and worker.subscriptions[0].counts["ack"] == 9)

    assert most == 3


def test_no_more_than_the_prefetch_is_taken_from_the_broker(
    worker_app: AppWithWorkers,
) -> None:
    go = Event()

    @worker_app.qconsume.consumer("billing", concurrency=1, prefetch=4)
    def bill(order: t.Any) -> None:
        go.wait()

    worker_app.start()
    for _ in range(10):
        worker_app.publish("billing")

    wait_for(lambda: worker_app.consumers.broker.depth("billing") == 6)
    go.set()
    wait_for(lambda: worker_app.consumers.broker.depth("billing") == 0)


def test_a_failing_message_is_retried_and_then_a_dead_letter(
    worker_app: AppWithWorkers,
) -> None:
    attempts: list[int] = []

    @worker_app.qconsume.consumer(
        "billing", retry={"max_attempts": 3, "min_delay": 0.01}
    )
    def bill(order: t.Any) -> None:
        attempts.append(current_message.attempt)
        raise OSError("gateway down")

    worker_app.start()
    id = worker_app.publish("billing", {"id": 1})
    wait_for(lambda: worker_app.dead("billing"))

    (dead,) = worker_app.dead("billing")
    assert attempts == [1, 2, 3]
    assert dead.message.id == id
    assert dead.message.raw == b'{"id":1}'
    assert dead.headers["x-qconsume-reason"] == "failed 3 of 3 attempts"
    assert dead.headers["x-qconsume-error"] == "builtins.OSError: gateway down"
    assert "gateway down" in dead.headers["x-qconsume-traceback"]
    assert dead.headers["x-qconsume-consumer"] == "bill"
    assert dead.headers["x-qconsume-attempts"] == 3


def test_each_attempt_has_a_message_of_its_own(worker_app: AppWithWorkers) -> None:
    """An abandoned attempt still has its message, which must not change."""
    seen: list[t.Any] = []

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> Retry | None:
        seen.append(current_message._get_current_object())  # type: ignore[attr-defined]
        return Retry(delay=0) if len(seen) < 3 else None

    worker = worker_app.start()
    worker_app.publish("billing", {"id": 1})
    wait_for(lambda: worker.subscriptions[0].counts["ack"] == 1)

    assert [message.attempt for message in seen] == [1, 2, 3]
    assert [message.body for message in seen] == [{"id": 1}] * 3
    assert len({message.deadline for message in seen}) == 3


def test_a_long_retry_is_held_by_the_broker(worker_app: AppWithWorkers) -> None:
    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> Retry:
        return Retry(delay=3600)

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.subscriptions[0].counts["retry"] == 1)

    assert worker.stop() is True
    assert worker_app.consumers.broker.depth("billing") == 0


@pytest.mark.broker
def test_a_retry_longer_than_the_broker_can_hold_is_cut_and_logged_once(
    worker_app: AppWithWorkers, rabbitmq_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = rabbitmq_url

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> Retry:
        return Retry(datetime.timedelta(days=8))

    worker = worker_app.start()
    for number in range(2):
        worker_app.publish("billing", number)
    week = 7 * 86_400
    broker = worker_app.consumers.broker
    wait_for(lambda: (held := broker.read_held_back()) and held.retries.get(week) == 2)
    worker.stop()

    (logged,) = [each for each in caplog.messages if "a 'Retry' asks for" in each]
    assert "bill: a 'Retry' asks for a delay of 691200 s, and RabbitMQ can" in logged
    assert "for 604800 s at the most" in logged


def test_a_handler_over_its_time_limit_is_retried(worker_app: AppWithWorkers) -> None:
    errors: list[BaseException] = []

    @worker_app.qconsume.consumer("billing", timeout=0.02)
    def bill(order: t.Any) -> None:
        if current_message.attempt == 1:
            try:
                hang()
            except HandlerTimeout as error:
                errors.append(error)
                raise

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.subscriptions[0].counts["ack"] == 1)

    assert str(errors[0]) == "the handler took longer than its 0.02 s"
    assert worker.subscriptions[0].counts["retry"] == 1


def test_a_handler_cannot_hide_its_time_limit(worker_app: AppWithWorkers) -> None:
    """A handler that swallows the error and returns is not acknowledged."""

    @worker_app.qconsume.consumer("billing", timeout=0.02)
    def bill(order: t.Any) -> None:
        if current_message.attempt == 1:
            try:
                hang()
            except BaseException:
                return

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.subscriptions[0].counts["ack"] == 1)

    assert worker.subscriptions[0].counts["retry"] == 1


def test_a_handler_that_never_ends_does_not_stop_other_messages(
    worker_app: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "OVERDUE_SECONDS", 0.05)
    monkeypatch.setattr(Link, "keep_alive_interval", 0.05)
    release = Event()
    done: list[t.Any] = []

    @worker_app.qconsume.consumer("billing", timeout=0.05, concurrency=1)
    def bill(order: t.Any) -> None:
        while order == "stuck" and not release.is_set():
            try:
                release.wait()
            except BaseException:
                continue
        done.append(order)

    worker = worker_app.start()
    worker_app.publish("billing", "stuck", headers={})
    for _ in range(3):
        worker_app.publish("billing", "good")
    wait_for(lambda: done.count("good") == 3)
    assert worker.subscriptions[0].counts["retry"] >= 1
    release.set()
    wait_for(lambda: worker.busy == 0)


def test_system_exit_in_a_handler_stops_nothing(worker_app: AppWithWorkers) -> None:
    done: list[t.Any] = []

    @worker_app.qconsume.consumer("billing", concurrency=1, retry={"max_attempts": 1})
    def bill(order: t.Any) -> None:
        if order == "exit":
            sys.exit(7)
        if order == "kill":
            raise gevent.GreenletExit
        done.append(order)

    worker_app.start()
    for body in ("exit", "kill", "good"):
        worker_app.publish("billing", body)
    wait_for(lambda: done == ["good"])

    errors = [dead.headers["x-qconsume-error"] for dead in worker_app.dead("billing")]
    assert errors == ["builtins.SystemExit: 7", "greenlet.GreenletExit: "]


def test_a_stop_waits_for_running_handlers(worker_app: AppWithWorkers) -> None:
    started, go = Event(), Event()
    done: list[bool] = []

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        started.set()
        go.wait()
        done.append(current_message.stopping.is_set())

    worker = worker_app.start()
    worker_app.publish("billing")
    started.wait()
    stopping = gevent.spawn(worker.stop)
    wait_for(worker.stopping.is_set)
    go.set()

    assert stopping.get() is True
    assert done == [True]


def test_handlers_that_wait_for_the_stop_all_see_it(worker_app: AppWithWorkers) -> None:
    waiting: list[t.Any] = []
    seen: list[bool] = []

    @worker_app.qconsume.consumer("billing", concurrency=10)
    def bill(order: t.Any) -> None:
        waiting.append(order)
        seen.append(current_message.stopping.wait(60))

    worker = worker_app.start()
    for _ in range(10):
        worker_app.publish("billing")
    wait_for(lambda: len(waiting) == 10)

    assert worker.stop() is True
    assert seen == [True] * 10


def test_unstarted_messages_go_back_uncharged_at_once(
    worker_app: AppWithWorkers,
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = "memory://goes-back"
    started, go = Event(), Event()

    @worker_app.qconsume.consumer("billing", concurrency=1, prefetch=5)
    def bill(order: t.Any) -> None:
        started.set()
        go.wait()

    worker = worker_app.start()
    ids = [worker_app.publish("billing", number) for number in range(5)]
    started.wait()
    wait_for(lambda: worker_app.consumers.broker.depth("billing") == 0)
    stopping = gevent.spawn(worker.stop)
    wait_for(lambda: worker_app.consumers.broker.depth("billing") == 4)
    go.set()

    assert stopping.get() is True
    queue = worker_app.consumers.broker.store.queue("billing")  # type: ignore[attr-defined]
    left = [entry.message for entry in queue.take(9, lambda: False)]
    assert [message.id for message in left] == ids[1:]
    assert {message.attempt for message in left} == {1}


def test_at_the_deadline_handlers_are_interrupted_and_nothing_is_charged(
    worker_app: AppWithWorkers,
) -> None:
    seen: list[BaseException] = []

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        try:
            hang()
        except Interrupted as error:
            seen.append(error)
            raise

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.busy == 1)

    assert worker.stop(timeout=0.05) is False
    assert len(seen) == 1
    assert worker_app.consumers.broker.depth("billing") == 1


def test_a_handler_cannot_hide_its_interruption(worker_app: AppWithWorkers) -> None:
    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        try:
            hang()
        except BaseException:
            return

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.busy == 1)

    assert worker.stop(timeout=0.05) is False
    assert worker_app.consumers.broker.depth("billing") == 1


def test_worker_hooks_run_in_order_and_in_an_app_context(
    worker_app: AppWithWorkers,
) -> None:
    calls: list[str] = []
    for name in ("one", "two"):

        @worker_app.qconsume.before_worker
        def begin(name: str = name) -> None:
            calls.append(f"before {name}")

        @worker_app.qconsume.teardown_worker
        def end(name: str = name) -> None:
            calls.append(f"teardown {name}")

    worker_app.start().stop()

    assert calls == ["before one", "before two", "teardown two", "teardown one"]


def test_a_teardown_hook_that_raises_does_not_stop_other_hooks(
    worker_app: AppWithWorkers,
) -> None:
    calls: list[str] = []
    worker_app.qconsume.teardown_worker(lambda: calls.append("first registered"))

    @worker_app.qconsume.teardown_worker
    def broken() -> None:
        raise RuntimeError("oh")

    assert worker_app.start().stop() is True
    assert calls == ["first registered"]


def test_a_before_hook_that_raises_keeps_the_worker_from_starting(
    worker_app: AppWithWorkers,
) -> None:
    calls: list[str] = []
    worker_app.qconsume.teardown_worker(lambda: calls.append("torn down"))

    @worker_app.qconsume.before_worker
    def broken() -> None:
        raise RuntimeError("no pool")

    with pytest.raises(RuntimeError, match="no pool"):
        worker_app.start()

    assert calls == ["torn down"]


def test_a_second_worker_of_the_app_is_refused(worker_app: AppWithWorkers) -> None:
    worker_app.start()

    with pytest.raises(WorkerError, match="runs already in process"):
        worker_app.start()


def test_only_the_named_consumers_run(worker_app: AppWithWorkers) -> None:
    worker_app.config["QCONSUME_CONSUMERS"] = {"off": {"enabled": False}}
    for name in ("one", "two", "off"):
        worker_app.qconsume.add_consumer(name, lambda body: None, name=name)

    assert [s.name for s in worker_app.start("two").subscriptions] == ["two"]
    worker_app.workers[0].stop()
    assert [s.name for s in worker_app.start().subscriptions] == ["one", "two"]
    with pytest.raises(UnknownConsumer, match="did you mean 'one'"):
        worker_app.start("onee")


def test_signals_report_start_and_stop(worker_app: AppWithWorkers) -> None:
    told: list[t.Any] = []

    def started(app: t.Any, worker: t.Any) -> None:
        told.append(("started", app, worker))

    def stopped(app: t.Any, worker: t.Any, clean: bool) -> None:
        told.append(("stopped", worker, clean))

    with (
        signals.worker_started.connected_to(started, sender=worker_app.app),
        signals.worker_stopped.connected_to(stopped, sender=worker_app.app),
    ):
        worker = worker_app.start()
        worker.stop()

    assert told == [("started", worker_app.app, worker), ("stopped", worker, True)]


def test_a_long_stop_logs_its_progress(
    worker_app: AppWithWorkers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("flask_qconsume.running.worker._PROGRESS_SECONDS", 0.05)
    caplog.set_level("INFO", "flask_qconsume")

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        wait_for(lambda: "still handling" in caplog.text)

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.busy == 1)

    assert worker.stop() is True
    assert "Stopping: still handling 1 message," in caplog.text


def test_ready_is_said_only_while_consuming(worker_app: AppWithWorkers) -> None:
    worker_app.qconsume.add_consumer("billing", lambda body: None, name="bill")
    worker = worker_app.start()

    wait_for(lambda: worker.ready)
    worker.stop()

    assert not worker.ready


@pytest.mark.process
def test_an_unpatched_process_is_refused_with_the_remedy() -> None:
    code = """
from flask import Flask
from flask_qconsume import QConsume, WorkerError
from flask_qconsume.running.worker import Worker
app = Flask("x")
app.config["QCONSUME_BROKER_URL"] = "memory://"
QConsume(app)
try:
    Worker(app).start()
except WorkerError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "flask qconsume run" in done.stdout


def test_a_rejected_message_keeps_its_reason(worker_app: AppWithWorkers) -> None:
    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        raise Reject("card declined")

    worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker_app.dead("billing"))

    assert worker_app.dead("billing")[0].headers["x-qconsume-reason"] == "card declined"
