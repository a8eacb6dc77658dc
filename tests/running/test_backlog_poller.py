"""The gauges of queues, read from a real broker while a worker consumes."""

from __future__ import annotations

import logging
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import gevent
import pytest

from flask_qconsume.observing import metrics as metrics_module
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.running import backlog_poller
from flask_qconsume.running import worker_gauges
from flask_qconsume.running.backlog_poller import BacklogPoller
from flask_qconsume.running.backlog_poller import Reading

from ..faults.proxy import Proxy
from ..servers import Redis
from ..waiting import spend
from ..waiting import wait_for
from .conftest import AppWithWorkers
from .gauges import metrics_of
from .gauges import read_gauges

OLDEST = "queue_oldest_seconds:bill:billing"
READY = "queue_ready:bill:billing"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_gauges, "_INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(backlog_poller, "_INTERVAL_FACTOR", 0)
    (interval,) = t.cast(tuple[float], BacklogPoller.__init__.__defaults__)
    assert interval == 5.0
    monkeypatch.setattr(BacklogPoller.__init__, "__defaults__", (0.1,))


@pytest.fixture
def worker_app(worker_app: AppWithWorkers) -> AppWithWorkers:
    worker_app.config["QCONSUME_METRICS"] = True
    return worker_app


def gauges(worker_app: AppWithWorkers) -> dict[str, float]:
    return read_gauges(metrics_of(worker_app.app))


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [m for m in (r.getMessage() for r in caplog.records) if text in m]


@pytest.mark.broker
@pytest.mark.parametrize("scheme", ["redis:", "redis-streams:"])
def test_the_backlog_of_a_consumer_that_does_not_run_is_shown(
    worker_app: AppWithWorkers, redis_url: str, scheme: str
) -> None:
    """The age of its oldest message grows."""
    worker_app.config["QCONSUME_BROKER_URL"] = redis_url.replace("redis:", scheme)
    worker_app.config["QCONSUME_CONSUMERS"] = {"bill": {"enabled": False}}
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker_app.qconsume.add_consumer("audit", print, name="audit")
    worker_app.start()
    wait_for(lambda: gauges(worker_app).get(READY) == 0)
    assert gauges(worker_app)[OLDEST] == 0
    worker_app.publish("billing", 1)
    worker_app.publish("billing", 2, delay=60)
    wait_for(lambda: gauges(worker_app)[READY] == 1)
    assert 0 <= gauges(worker_app)[OLDEST] < 30
    wait_for(lambda: gauges(worker_app)[OLDEST] > 2)
    found = gauges(worker_app)
    assert found["queue_delayed:bill:billing"] == 1
    assert found["queue_ready:audit:audit"] == found["queue_in_hand:audit:audit"] == 0
    assert found["queue_suspects:bill:billing"] == 0
    assert found["queue_dead_letters:bill:billing"] == 0
    assert abs(found["queue_read_seconds:bill:billing"] - time.time()) < 30
    assert "queue_lag:bill:billing" not in found


@pytest.mark.broker
def test_rabbitmq_tells_neither_ages_nor_delayed_messages(
    worker_app: AppWithWorkers, rabbitmq_url: str
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = rabbitmq_url
    worker_app.config["QCONSUME_CONSUMERS"] = {"bill": {"enabled": False}}
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker_app.start()
    worker_app.publish("billing", 1)
    wait_for(lambda: gauges(worker_app).get(READY) == 1)
    assert find_queue_gauges(worker_app) == {
        "ready": 1,
        "suspects": 0,
        "dead_letters": 0,
    }


@pytest.mark.broker
def test_kafka_tells_the_lag_and_no_number_of_dead_letters(
    worker_app: AppWithWorkers, kafka_url: str, kafka_prefix: str
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = kafka_url
    worker_app.config["QCONSUME_QUEUE_PREFIX"] = kafka_prefix
    worker_app.config["QCONSUME_CONSUMERS"] = {"bill": {"enabled": False}}
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker_app.start()
    queue = f"{kafka_prefix}billing"
    for number in range(3):
        worker_app.publish("billing", number)
    wait_for(lambda: gauges(worker_app).get(f"queue_ready:bill:{queue}") == 3, 30)
    found = find_queue_gauges(worker_app, queue)
    assert 0 <= found.pop("oldest_seconds") < 60
    assert found == {"ready": 3, "delayed": 0, "suspects": 0, "lag": 3}


def find_queue_gauges(
    worker_app: AppWithWorkers, queue: str = "billing"
) -> dict[str, float]:
    """Return the gauges of one queue, without the time of the reading."""
    end = f":bill:{queue}"
    return {
        name.removeprefix("queue_").removesuffix(end): value
        for name, value in gauges(worker_app).items()
        if name.startswith("queue_") and name.endswith(end) and "read_s" not in name
    }


@pytest.mark.broker
# A stop that cuts off redis-py's connect leaves the socket to Python's collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_an_outage_is_logged_once_and_readings_go_on_after_it(
    worker_app: AppWithWorkers,
    own_redis: Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG, "flask_qconsume.backlog")
    monkeypatch.setattr(worker_gauges, "_MAX_AGE_SECONDS", 0.5)
    worker_app.config["QCONSUME_BROKER_URL"] = own_redis.url
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker = worker_app.start()
    wait_for(lambda: READY in gauges(worker_app))
    own_redis.kill()
    # An old number is hidden, and the worker's own gauges stay.
    wait_for(lambda: READY not in gauges(worker_app))
    wait_for(lambda: gauges(worker_app)["ready"] == 0)
    wait_for(lambda: len(said(caplog, "Cannot count the messages")) >= 3)
    levels = [r.levelno for r in caplog.records if "Cannot count" in r.getMessage()]
    assert levels.count(logging.WARNING) == 1
    assert levels[0] == logging.WARNING
    own_redis.start()
    wait_for(lambda: READY in gauges(worker_app), 30)
    assert len(said(caplog, "counted again")) == 1
    assert worker.stop()


@pytest.mark.broker
def test_a_reading_without_an_answer_delays_neither_consuming_nor_the_stop(
    worker_app: AppWithWorkers, redis_server: Redis, redis_url: str
) -> None:
    """Another app in the process reads through a proxy that lets nothing through."""
    worker_app.config["QCONSUME_BROKER_URL"] = redis_url
    handled: list[t.Any] = []
    worker_app.qconsume.add_consumer("billing", handled.append, name="bill")
    worker_app.start()
    with Proxy(redis_server.port) as proxy:
        url = redis_url.replace(f":{redis_server.port}/", f":{proxy.port}/")
        slow = AppWithWorkers(QCONSUME_BROKER_URL=url, QCONSUME_METRICS=True)
        slow.qconsume.add_consumer("billing", print, name="bill")
        poller = BacklogPoller(slow.consumers, metrics_of(slow.app), 0.01)
        poller.start()
        first = wait_for(lambda: poller.latest)
        wait_for(lambda: poller.latest is not first)
        proxy.stall()
        # Once no reading is in the air any more, the next one hangs.
        last = wait_for(lambda: _find_unchanged(poller, 0.5))
        worker_app.consumers.publish_many(
            [("billing", number) for number in range(1_000)]
        )
        wait_for(lambda: len(handled) == 1_000)
        assert poller.latest is last
        assert poller._failing_since is None, "the reading was over before"
        with gevent.Timeout(1, AssertionError("the stop waits for the broker")):
            poller.stop()
        slow.consumers.close()


def _find_unchanged(poller: BacklogPoller, seconds: float) -> Reading | None:
    """Return the latest reading if there is no later one within some seconds."""
    latest = poller.latest
    spend(seconds)
    return latest if poller.latest is latest else None


def test_a_process_that_cannot_use_the_folder_reads_for_itself(
    worker_app: AppWithWorkers, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").touch()
    worker_app.config["QCONSUME_METRICS"] = str(tmp_path / "file" / "folder")
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    worker_app.start()
    wait_for(lambda: gauges(worker_app).get(READY) == 0)
    assert gauges(worker_app)[OLDEST] == 0


#: Runs a worker that shows its gauges in FOLDER; prints a line once it runs.
SHOWING = """
from gevent import get_hub, monkey
monkey.patch_all()
import sys
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.running import backlog_poller, worker_gauges
from flask_qconsume.running.backlog_poller import BacklogPoller
from flask_qconsume.running.worker import Worker

worker_gauges._INTERVAL_SECONDS = 0.02
BacklogPoller.__init__.__defaults__ = (0.1,)
app = Flask("showing")
app.config.update(QCONSUME_BROKER_URL=sys.argv[1], QCONSUME_METRICS=sys.argv[2])
QConsume(app).add_consumer("billing", print, name="bill")
worker = Worker(app)
worker.start()
print("started", flush=True)
get_hub().threadpool.apply(sys.stdin.read)
worker.stop()
"""


class Showing:
    """A process with a worker that shows gauges in a folder."""

    def __init__(self, url: str, folder: pathlib.Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHOWING, url, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "started\n"

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def find_readers(metrics: Metrics) -> list[int]:
    """Return the processes that show the queues' gauges."""
    return [
        gauges.pid
        for gauges in metrics.read().gauges
        if any(each.name.startswith("qconsume_queue_") for each in gauges.series)
    ]


@pytest.mark.broker
@pytest.mark.process
@pytest.mark.parametrize("killed", [True, False])
def test_one_process_reads_and_another_takes_over(
    redis_url: str, tmp_path: pathlib.Path, killed: bool
) -> None:
    metrics = Metrics(str(tmp_path))
    processes = [Showing(redis_url, tmp_path) for _ in range(3)]
    try:
        first = wait_for(lambda: find_readers(metrics))
        began = read_time(metrics)
        wait_for(lambda: read_time(metrics) > began)
        assert find_readers(metrics) == first
        (holder,) = (each for each in processes if each.process.pid == first[0])
        if killed:
            holder.process.kill()
            holder.process.wait(30)
        holder.close()
        second = wait_for(lambda: find_readers(metrics), 30)
        assert len(second) == 1
        assert second != first
        # The gauges of the workers themselves are shown by each of them.
        wait_for(lambda: len(metrics.read().gauges) == 3)
    finally:
        for each in processes:
            each.close()
    assert find_readers(metrics) == []


def read_time(metrics: Metrics) -> float:
    return read_gauges(metrics).get("queue_read_seconds:bill:billing", 0.0)


@pytest.mark.broker
@pytest.mark.process
def test_gauges_of_a_process_that_is_halted_are_hidden(
    redis_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "_MAX_GAUGES_AGE_SECONDS", 2.0)
    metrics = Metrics(str(tmp_path))
    showing = Showing(redis_url, tmp_path)
    try:
        wait_for(lambda: find_readers(metrics))
        os.kill(showing.process.pid, signal.SIGSTOP)
        wait_for(lambda: metrics.read().gauges == [], 30)
        os.kill(showing.process.pid, signal.SIGCONT)
        wait_for(lambda: find_readers(metrics), 30)
    finally:
        os.kill(showing.process.pid, signal.SIGCONT)
        showing.close()
