"""The gauges of a worker, with a real worker on the memory broker."""

from __future__ import annotations

import platform
import threading
import time
import typing as t

import gevent
import pytest
from gevent.event import Event

import flask_qconsume
from flask_qconsume.handling.events import tell
from flask_qconsume.running import worker_gauges
from flask_qconsume.running.backlog_poller import Reading
from flask_qconsume.running.fair_share import TURN_SECONDS
from flask_qconsume.running.health.verdict import Problem

from ..waiting import wait_for
from .conftest import AppWithWorkers
from .gauges import metrics_of
from .gauges import read_counts
from .gauges import read_gauges

BLOCKED = "hub_blocked_seconds_total"


@pytest.fixture
def worker_app(worker_app: AppWithWorkers) -> AppWithWorkers:
    worker_app.config["QCONSUME_METRICS"] = True
    return worker_app


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_gauges, "_INTERVAL_SECONDS", 0.02)


def gauges(worker_app: AppWithWorkers) -> dict[str, float]:
    return read_gauges(metrics_of(worker_app.app))


def test_each_gauge_tells_what_the_worker_does(worker_app: AppWithWorkers) -> None:
    go = Event()
    worker_app.qconsume.consumer("billing", name="bill", concurrency=2, prefetch=5)(
        lambda body: go.wait(30)
    )
    worker_app.qconsume.add_consumer("audit", print, name="audit")
    worker = worker_app.start()
    for number in range(6):
        worker_app.publish("billing", number)
    wait_for(lambda: gauges(worker_app).get("prefetched:bill") == 3)
    wait_for(lambda: gauges(worker_app)["ready"] == 1)
    found = gauges(worker_app)
    version = flask_qconsume.__version__
    assert found[f"worker_info:{version}:{platform.python_version()}:memory"] == 1
    assert (found["live"], found["in_flight:bill"]) == (1, 2)
    assert (found["connected:bill"], found["connected:audit"]) == (1, 1)
    assert (found["in_flight:audit"], found["prefetched:audit"]) == (0, 0)
    assert 0 <= found["hub_latency_seconds"] < 30
    assert "web_share" not in found
    assert not [name for name in found if name.startswith("problems")]
    go.set()
    wait_for(lambda: gauges(worker_app)["in_flight:bill"] == 0)
    assert worker.stop()
    assert gauges(worker_app) == {}


def test_problems_are_counted_by_kind(worker_app: AppWithWorkers) -> None:
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker = worker_app.start()
    wait_for(lambda: gauges(worker_app).get("ready") == 1)
    worker.stopping.set()
    wait_for(lambda: gauges(worker_app)["ready"] == 0)
    worker.watchdog.started = False
    wait_for(lambda: gauges(worker_app).get("problems:starting") == 1)
    worker.stopping.clear()


def test_a_retry_that_is_held_in_the_process_counts_as_prefetched(
    worker_app: AppWithWorkers,
) -> None:
    worker_app.config["QCONSUME_RETRY"] = {
        "min_delay": 0.9,
        "max_delay": 0.9,
        "jitter": 0,
    }

    def fail(body: t.Any) -> None:
        raise ValueError(body)

    worker_app.qconsume.add_consumer("billing", fail, name="bill")
    worker_app.start()
    worker_app.publish("billing", 1)
    wait_for(lambda: gauges(worker_app).get("prefetched:bill") == 1)


def test_the_share_of_web_requests_is_shown_beside_a_web_server(
    worker_app: AppWithWorkers,
) -> None:
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker = worker_app.start(beside_web=True)
    wait_for(lambda: gauges(worker_app).get("web_share") == 0)
    assert worker.fair_share is not None
    worker.fair_share.pace.pause = 3 * TURN_SECONDS
    wait_for(lambda: gauges(worker_app)["web_share"] == 0.75)


def test_a_blocked_event_loop_is_seen_while_it_lasts(
    worker_app: AppWithWorkers,
) -> None:
    """A native thread of the test reads the metrics meanwhile."""
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker_app.start()
    metrics = metrics_of(worker_app.app)
    wait_for(lambda: gauges(worker_app).get("ready") == 1)
    before = read_counts(metrics)[BLOCKED]
    began = time.monotonic()
    latency = 0.0
    while latency < 1.0 and time.monotonic() - began < 30:
        # No greenlet runs meanwhile: neither the loop's timer nor a greenlet's.
        latency = read_gauges(metrics)["hub_latency_seconds"]
    blocked = read_counts(metrics)[BLOCKED] - before
    assert latency >= 1.0
    took = time.monotonic() - began
    assert 0.8 <= blocked <= took
    gevent.sleep(0)
    wait_for(lambda: gauges(worker_app)["hub_latency_seconds"] < 1.0)
    # The watchdog tells the end of the block, too, which is not counted once more.
    tell(worker_app.consumers.events.problem_ended, Problem("blocked", "", ""), 600.0)
    assert read_counts(metrics)[BLOCKED] - before <= time.monotonic() - began


def test_old_readings_of_queues_are_hidden(
    worker_app: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker = worker_app.start()
    wait_for(lambda: "queue_ready:bill:billing" in gauges(worker_app))
    poller = worker._gauges._poller  # type: ignore[union-attr]
    poller._greenlet.end()  # type: ignore[union-attr]
    latest = poller.latest
    assert latest is not None
    poller.latest = Reading(latest.at - 31, latest.gauges)
    wait_for(lambda: "queue_ready:bill:billing" not in gauges(worker_app))
    assert gauges(worker_app)["live"] == 1


def test_without_metrics_there_is_neither_thread_nor_timer(
    worker_app: AppWithWorkers,
) -> None:
    worker_app.config["QCONSUME_METRICS"] = False
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    threads = threading.active_count()
    worker = worker_app.start()
    assert worker._gauges is None
    assert threading.active_count() == threads
