"""Exceptions thrown into the worker's greenlets from outside end none of them."""

from __future__ import annotations

import gc
import logging
import threading
import typing as t

import gevent
import pytest
from gevent.event import Event

from flask_qconsume import current_message
from flask_qconsume.running.greenlets import ProtectedGreenlet

from ..waiting import spend
from ..waiting import wait_for
from .conftest import AppWithWorkers


def ours() -> list[gevent.Greenlet]:
    """All greenlets that exist, except for the test's own."""
    this = gevent.getcurrent()
    found = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet)]
    return [each for each in found if each and each is not this]


def test_a_timeout_that_a_handler_leaves_running_ends_with_its_message(
    worker_app: AppWithWorkers,
) -> None:
    """Neither the next message of the same greenlet nor an idle greenlet gets it."""
    rung: list[gevent.Timeout] = []

    class Left(gevent.Timeout):  # type: ignore[misc]
        def _on_expiration(self, *args: t.Any) -> None:
            rung.append(self)
            super()._on_expiration(*args)

    @worker_app.qconsume.consumer("billing", concurrency=1)
    def bill(kind: str) -> None:
        if kind == "leave one":
            Left(0.05).start()
        else:
            wait_for(lambda: rung)

    worker = worker_app.start()
    worker_app.publish("billing", "leave one")
    worker_app.publish("billing", "wait")
    counts = worker.subscriptions[0].counts
    wait_for(lambda: counts.total() == 2)

    assert counts == {"ack": 2}


def test_a_timeout_is_raised_in_its_own_message(worker_app: AppWithWorkers) -> None:
    @worker_app.qconsume.consumer("billing", concurrency=1, retry={"max_attempts": 1})
    def bill(order: t.Any) -> None:
        gevent.Timeout(0.01).start()
        Event().wait()

    worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker_app.dead("billing"))

    (dead,) = worker_app.dead("billing")
    assert "Timeout" in dead.headers["x-qconsume-error"]


def test_a_kill_that_comes_late_does_not_reach_the_next_message(
    worker_app: AppWithWorkers,
) -> None:
    seen: list[gevent.Greenlet] = []

    @worker_app.qconsume.consumer("billing", concurrency=1)
    def bill(kind: str) -> None:
        if kind == "be seen":
            seen.append(gevent.getcurrent())
        else:
            gevent.spawn(seen[0].kill).join()

    worker = worker_app.start()
    worker_app.publish("billing", "be seen")
    worker_app.publish("billing", "kill what was seen")
    counts = worker.subscriptions[0].counts
    wait_for(lambda: counts.total() == 2)

    assert counts == {"ack": 2}


def test_a_consumer_outlives_the_timeouts_that_its_messages_leave(
    worker_app: AppWithWorkers,
) -> None:
    left: list[gevent.Timeout] = []

    @worker_app.qconsume.consumer("billing", concurrency=5)
    def bill(order: t.Any) -> None:
        left.append(gevent.Timeout.start_new(0.01))
        gevent.sleep(0)

    worker = worker_app.start()
    for number in range(50):
        worker_app.publish("billing")
        wait_for(lambda n=number: len(left) > n and not left[-1].pending)

    wait_for(lambda: worker.subscriptions[0].counts == {"ack": 50})


def test_greenlets_are_reused_unless_other_code_refers_to_them(
    worker_app: AppWithWorkers,
) -> None:
    """Messages that leave no reference behind share their greenlets."""
    seen: list[int] = []
    logging.disable()  # The log that pytest keeps refers to errors, and so to frames.

    @worker_app.qconsume.consumer("billing", concurrency=1)
    def bill(waits: bool) -> None:
        threading.current_thread()
        seen.append(id(gevent.getcurrent()))
        with gevent.Timeout(5):
            spend(0.001 if waits else 0)
        if not waits:
            raise OSError

    worker_app.start()
    for number in range(10):
        worker_app.publish("billing", number % 2 == 0)
    wait_for(lambda: len(seen) >= 30)

    logging.disable(logging.NOTSET)
    assert len(set(seen)) == 1


def test_killing_all_greenlets_ends_none_of_the_workers(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[t.Any] = []

    @worker_app.qconsume.consumer("billing", concurrency=3, retry={"max_attempts": 2})
    def bill(order: t.Any) -> None:
        handled.append(order)
        if order == "fail":
            raise OSError

    worker = worker_app.start()
    for number in range(3):
        worker_app.publish("billing", number)
    wait_for(lambda: len(handled) == 3)
    for kind in (gevent.GreenletExit, gevent.Timeout):
        for greenlet in ours():
            greenlet.kill(kind, block=False)
        gevent.idle()  # All have been hit.
    for number in range(3, 6):
        worker_app.publish("billing", number)
    worker_app.publish("billing", "fail")
    wait_for(lambda: worker_app.dead("billing"))

    assert sorted(map(str, handled)) == ["0", "1", "2", "3", "4", "5", "fail", "fail"]
    assert worker.watchdog.verdict.live
    assert worker.stop() is True
    texts = [record.getMessage() for record in caplog.records]
    assert any("thrown into a greenlet that handles no message" in t for t in texts)
    assert any("a greenlet of the worker. It goes on" in t for t in texts)


def test_killing_all_greenlets_loses_no_waiting_retry(
    worker_app: AppWithWorkers,
) -> None:
    """A greenlet that has not begun would end silently."""
    attempts: list[int] = []

    @worker_app.qconsume.consumer("billing", retry={"min_delay": 0.3, "jitter": 0})
    def bill(order: t.Any) -> None:
        attempts.append(current_message.attempt)
        if current_message.attempt == 1:
            raise OSError

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.subscriptions[0].counts == {"retry": 1})
    gevent.killall(ours(), block=False)

    wait_for(lambda: attempts == [1, 2])
    assert worker.stop() is True


def create_kafka_config(request: pytest.FixtureRequest) -> dict[str, str]:
    return {
        "QCONSUME_BROKER_URL": request.getfixturevalue("kafka_url"),
        "QCONSUME_QUEUE_PREFIX": request.getfixturevalue("kafka_prefix"),
    }


@pytest.mark.broker
@pytest.mark.parametrize("place", ["rabbitmq", "redis", "redis-streams", "kafka"])
def test_killing_all_greenlets_ends_none_of_the_brokers(
    worker_app: AppWithWorkers, request: pytest.FixtureRequest, place: str
) -> None:
    """Publishing, confirming and looking for due messages go on."""
    if place == "kafka":
        worker_app.config |= create_kafka_config(request)
    else:
        url = request.getfixturevalue(f"{place.partition('-')[0]}_url")
        scheme = "amqp" if place == "rabbitmq" else place
        worker_app.config["QCONSUME_BROKER_URL"] = scheme + url[url.index(":") :]
    handled: list[t.Any] = []

    @worker_app.qconsume.consumer("billing", concurrency=3, retry={"max_attempts": 2})
    def bill(order: t.Any) -> None:
        handled.append(order)
        if order == 4:
            raise OSError

    worker = worker_app.start()
    for number in range(2):
        worker_app.publish("billing", number)
    wait_for(lambda: len(handled) == 2, 30)
    for greenlet in ours():
        greenlet.kill(block=False)
    gevent.idle()  # What is published at that moment may fail, and says so.
    for number in range(2, 5):
        worker_app.publish("billing", number)
    (plan,) = worker_app.consumers.topology.queues
    wait_for(lambda: worker_app.dead(plan.name), 60)

    wait_for(lambda: sorted(handled) == [0, 1, 2, 3, 4, 4])
    assert worker.stop() is True


def test_an_error_thrown_after_the_handler_counts_for_its_message(
    worker_app: AppWithWorkers,
) -> None:
    """The message has the handler's outcome or the retry policy's, but always one."""

    @worker_app.qconsume.consumer("billing", concurrency=1, retry={"max_attempts": 2})
    def bill(order: t.Any) -> None:
        if current_message.attempt == 1:
            gevent.Timeout(0.01).start()

    @worker_app.qconsume.teardown_message
    def wait_long(error: BaseException | None) -> None:
        if current_message.attempt == 1:
            Event().wait()

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.subscriptions[0].counts == {"retry": 1, "ack": 1})


def test_a_protected_greenlet_ends_by_its_own_method_alone() -> None:
    greenlet = ProtectedGreenlet.spawn(Event().wait)
    gevent.sleep(0)
    greenlet.kill(block=False)
    gevent.idle()
    assert not greenlet.dead

    greenlet.end()
    assert greenlet.dead
    assert greenlet.successful()
