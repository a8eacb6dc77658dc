"""What is counted: the messages of a worker, and what an app publishes."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
from flask import Flask
from gevent.event import Event

from flask_qconsume import Drop
from flask_qconsume import HandlerTimeout
from flask_qconsume import Message
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import Unroutable
from flask_qconsume.broker.link import Link
from flask_qconsume.extension import get_app_consumers
from flask_qconsume.handling.result import Result
from flask_qconsume.observing.counters import Counters
from flask_qconsume.observing.error_names import MAX_NAMES
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.metrics import get_metrics
from flask_qconsume.outcomes import Ack
from flask_qconsume.outcomes import Outcome
from flask_qconsume.registration.consumer import Consumer
from flask_qconsume.running import processing

from ..running.conftest import AppWithWorkers
from ..waiting import wait_for
from .samples import Samples
from .samples import scrape
from .samples import select


@pytest.fixture
def worker_app() -> t.Iterator[AppWithWorkers]:
    made = AppWithWorkers(QCONSUME_METRICS=True)
    yield made
    for worker in made.workers:
        if not worker.stopping.is_set():
            worker.stop(timeout=0)


def metrics_of(app: Flask) -> Metrics:
    metrics = get_metrics(app)
    assert metrics is not None
    return metrics


@pytest.fixture
def consumer() -> Consumer:
    app = Flask("counting")
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    qconsume = QConsume(app)
    qconsume.add_consumer("bill", print, name="bill")
    return get_app_consumers(app).consumers["bill"]


class Counting:
    """A listener in a test, and its samples."""

    def __init__(self, consumer: Consumer) -> None:
        self.metrics = Metrics()
        self.counters = Counters(self.metrics)
        self._consumer = consumer

    def decide(
        self,
        outcome: Outcome,
        seconds: float = 0.02,
        *,
        age: float | None = None,
        attempt: int = 1,
    ) -> None:
        published = None if age is None else time.time() - age
        message = Message(b"", "bill", timestamp=published, attempt=attempt)
        self.counters.decided(self._consumer, message, Result(outcome), seconds)

    def settle(self, *errors: Exception | None) -> None:
        end = self.counters.settling(self._consumer, "ack", [])
        end(list(errors))

    def scrape(self) -> Samples:
        self.settle(None)
        return scrape(self.metrics)


@pytest.fixture
def counting(consumer: Consumer) -> Counting:
    return Counting(consumer)


def test_a_worker_counts_each_attempt_and_its_outcome(
    worker_app: AppWithWorkers,
) -> None:
    outcomes: dict[str, BaseException] = {
        "dropped": Drop("too old"),
        "rejected": Reject("no such card"),
        "refused": ValueError("no"),
    }

    @worker_app.qconsume.consumer("bill")
    def bill(body: str) -> None:
        if body in outcomes:
            raise outcomes[body]

    worker_app.config["QCONSUME_RETRY"] = {
        "max_attempts": 3,
        "min_delay": 0.01,
        "max_delay": 0.02,
    }
    metrics = metrics_of(worker_app.app)
    worker_app.start()
    # A rate is known from the first message on.
    assert scrape(metrics)["qconsume_messages_total", ("bill", "ack")] == 0
    bodies = ["good"] * 20 + list(outcomes)
    for body in bodies:
        worker_app.publish("bill", body)
    wait_for(lambda: len(worker_app.dead("bill")) == 2)
    worker_app.workers[0].stop()

    samples = scrape(metrics)
    assert select(samples, "qconsume_messages_total") == {
        ("bill", "ack"): 20,
        ("bill", "drop"): 1,
        ("bill", "retry"): 2,
        ("bill", "reject"): 2,
    }
    failures = {("bill", "ValueError"): 3}
    assert select(samples, "qconsume_failures_total") == failures
    dead = {("bill", "ValueError"): 1, ("bill", "Reject"): 1}
    assert select(samples, "qconsume_dead_letters_total") == dead
    # Each attempt, each first attempt, each message.
    for name, count in {"handler": 25, "queue": 23, "end_to_end": 23}.items():
        assert samples[f"qconsume_{name}_seconds_count", ("bill",)] == count
        assert 0 <= samples[f"qconsume_{name}_seconds_sum", ("bill",)] < 60
    published = {("confirmed",): 23}
    assert select(samples, "qconsume_published_total") == published
    assert samples["qconsume_confirm_seconds_count", ()] == 23


def test_a_publish_that_a_stop_prevents_is_not_counted(
    worker_app: AppWithWorkers,
) -> None:
    """The stop interrupts another listener, so nothing is sent."""
    metrics = metrics_of(worker_app.app)
    ends = [begin([]) for begin in worker_app.consumers.events.publishing]
    for end in ends:
        if end is not None:
            end(None)
    samples = scrape(metrics)
    for outcome in ("confirmed", "failed"):
        assert samples["qconsume_published_total", (outcome,)] == 0
    assert samples["qconsume_confirm_seconds_count", ()] == 0


def test_a_publish_that_fails_is_counted(worker_app: AppWithWorkers) -> None:
    with pytest.raises(Unroutable):
        worker_app.publish("nowhere")
    published = select(scrape(metrics_of(worker_app.app)), "qconsume_published_total")
    assert published == {("failed",): 1}


def test_values_are_counted_in_the_bucket_with_the_next_bound(
    counting: Counting,
) -> None:
    for seconds in (0.0001, 0.001, 0.0011, 0.3, 700.0):
        counting.decide(Ack(), seconds)
    counting.decide(Reject("no"), 0.3)
    samples = counting.scrape()
    counts = {
        bound: samples["qconsume_handler_seconds_bucket", ("bill", bound)]
        for bound in ("0.001", "0.0025", "0.25", "0.5", "600.0", "+Inf")
    }
    assert list(counts.values()) == [2, 3, 3, 5, 5, 6]
    total = samples["qconsume_handler_seconds_sum", ("bill",)]
    assert total == pytest.approx(700.6022)


def test_only_last_outcomes_are_end_to_end_and_only_first_attempts_waited(
    counting: Counting,
) -> None:
    counting.decide(Retry(1), 1.0, age=5.0)
    counting.decide(Ack(), 1.0, age=9.0, attempt=2)
    samples = counting.scrape()
    assert samples["qconsume_queue_seconds_count", ("bill",)] == 1
    queued = samples["qconsume_queue_seconds_sum", ("bill",)]
    assert queued == pytest.approx(4.0, abs=0.5)
    assert samples["qconsume_end_to_end_seconds_count", ("bill",)] == 1
    in_all = samples["qconsume_end_to_end_seconds_sum", ("bill",)]
    assert in_all == pytest.approx(9.0, abs=0.5)


@pytest.mark.parametrize("count", [1, 5])
def test_a_clock_that_is_behind_the_publishers_counts_as_no_time(
    counting: Counting, count: int
) -> None:
    for _ in range(count):
        counting.decide(Ack(), age=-3_600.0)
    samples = counting.scrape()
    for name in ("queue", "end_to_end"):
        assert samples[f"qconsume_{name}_seconds_count", ("bill",)] == count
        assert samples[f"qconsume_{name}_seconds_sum", ("bill",)] == 0


def test_a_message_without_a_time_has_no_age(counting: Counting) -> None:
    counting.decide(Ack())
    samples = counting.scrape()
    assert samples["qconsume_messages_total", ("bill", "ack")] == 1
    assert samples["qconsume_queue_seconds_count", ("bill",)] == 0
    assert samples["qconsume_end_to_end_seconds_count", ("bill",)] == 0


def test_an_outcome_of_a_class_of_the_apps_counts_as_its_base(
    counting: Counting,
) -> None:
    class TooLate(Drop):
        pass

    counting.decide(TooLate("too late"))
    counts = select(counting.scrape(), "qconsume_messages_total")
    assert counts == {("bill", "drop"): 1}


def test_settlements_that_fail_or_are_lost_are_counted(
    counting: Counting, consumer: Consumer
) -> None:
    counting.settle(None, OSError(), OSError())
    counting.counters.lost(consumer, [Message(b"", "bill")] * 3)
    samples = counting.scrape()
    assert samples["qconsume_settlement_errors_total", ("bill",)] == 2
    assert samples["qconsume_stale_settlements_total", ("bill",)] == 3


def test_suspects_and_crashes_are_counted(
    counting: Counting, consumer: Consumer
) -> None:
    message = Message(b"", "bill")
    for rejected in (None, None, Reject("it kills")):
        counting.counters.suspected(consumer, message, rejected)
    samples = counting.scrape()
    assert samples["qconsume_suspects_total", ("bill",)] == 2
    assert samples["qconsume_dead_letters_total", ("bill", "Crash")] == 1


def test_a_handler_that_is_abandoned_at_its_time_limit_is_counted_once(
    worker_app: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "OVERDUE_SECONDS", 0.05)
    monkeypatch.setattr(Link, "keep_alive_interval", 0.05)
    release, ended = Event(), Event()

    @worker_app.qconsume.consumer("bill", timeout=0.05, retry={"max_attempts": 1})
    def bill(body: str) -> None:
        while not release.is_set():
            try:
                release.wait()
            except HandlerTimeout:
                continue
        ended.set()

    worker = worker_app.start()
    worker_app.publish("bill")
    wait_for(lambda: worker_app.dead("bill"))
    release.set()
    assert ended.wait(10)
    assert worker.stop()
    samples = scrape(metrics_of(worker_app.app))
    assert select(samples, "qconsume_messages_total") == {("bill", "reject"): 1}
    for name in ("failures", "dead_letters"):
        found = select(samples, f"qconsume_{name}_total")
        assert found == {("bill", "HandlerTimeout"): 1}


def test_only_later_connections_of_a_subscription_are_reconnects(
    counting: Counting,
) -> None:
    for name in ("bill", "bill (suspects)", "bill", "bill"):
        counting.counters.connected(name, "billing")
    samples = counting.scrape()
    assert samples["qconsume_reconnects_total", ("bill",)] == 2


def test_so_many_classes_of_errors_are_named(worker_app: AppWithWorkers) -> None:
    classes = iter([type(f"Error{n}", (Exception,), {}) for n in range(60)])

    @worker_app.qconsume.consumer("bill")
    def bill(body: str) -> None:
        raise next(classes)("no")

    worker_app.config["QCONSUME_RETRY"] = {"max_attempts": 1}
    worker_app.start()
    for _ in range(60):
        worker_app.publish("bill")
    wait_for(lambda: len(worker_app.dead("bill")) == 60)
    samples = scrape(metrics_of(worker_app.app))
    for name in ("failures", "dead_letters"):
        found = select(samples, f"qconsume_{name}_total")
        assert len(found) == MAX_NAMES + 1
        assert found["bill", "other"] == 60 - MAX_NAMES


def test_threads_that_publish_at_once_lose_no_count(worker_app: AppWithWorkers) -> None:
    worker_app.qconsume.add_consumer("bill", print, name="bill")

    def publish() -> None:
        for _ in range(50):
            worker_app.publish("bill")

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = select(scrape(metrics_of(worker_app.app)), "qconsume_published_total")
    assert published == {("confirmed",): 200}


def test_without_the_setting_nothing_is_counted_and_nothing_listens() -> None:
    worker_app = AppWithWorkers()
    assert get_metrics(worker_app.app) is None
    assert worker_app.consumers.events.decided == ()
    assert worker_app.consumers.events.settling == ()
