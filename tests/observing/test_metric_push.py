"""Pushing metrics by OTLP: what arrives, and collectors that do not answer."""

from __future__ import annotations

import functools
import gc
import logging
import pathlib
import re
import time
import typing as t

import gevent
import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.metrics.v1 import metrics_pb2

from flask_qconsume import ConfigurationError
from flask_qconsume import Reject
from flask_qconsume.integrations.otlp import push_metrics
from flask_qconsume.observing import metric_table
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.metrics import get_metrics

from ..apps import make_app
from ..harness.scripts import run_script
from ..running.conftest import AppWithWorkers
from ..waiting import wait_for
from .otlp_receiver import MetricReceiver
from .samples import scrape

ACKED = ("qconsume_messages_total", ("bill", "ack"))

LOGGER = "flask_qconsume.metrics"

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE

#: An interval at which nothing is pushed but at the stop.
NEVER = 600.0

#: Seconds that a request may take: longer than a stop.
TIMEOUT = 60.0


@pytest.fixture
def counting() -> t.Iterator[AppWithWorkers]:
    made = AppWithWorkers(QCONSUME_METRICS=True)
    yield made
    for worker in made.workers:
        if not worker.stopping.is_set():
            worker.stop(timeout=0)


def push(worker_app: AppWithWorkers, url: str, interval: float = 0.05) -> None:
    push_metrics(
        worker_app.app,
        lambda: OTLPMetricExporter(url, timeout=TIMEOUT),
        interval=interval,
    )


def metrics_of(worker_app: AppWithWorkers) -> Metrics:
    metrics = get_metrics(worker_app.app)
    assert metrics is not None
    return metrics


def find_last(receiver: MetricReceiver, key: t.Any, value: float) -> bool:
    """Return whether the last push has this value."""
    pushes = receiver.pushes
    return bool(pushes) and pushes[-1].samples.get(key) == value


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    found = [record for record in caplog.records if record.name == LOGGER]
    return [each.getMessage() for each in found if each.levelno == level]


def test_a_collector_gets_what_a_scrape_shows(counting: AppWithWorkers) -> None:
    @counting.qconsume.consumer("bill", retry={"max_attempts": 3})
    def bill(body: int) -> None:
        if body % 3 == 1:
            raise ValueError(body)
        if body % 3 == 2:
            raise Reject("unwanted")

    receiver = MetricReceiver()
    with receiver.serve() as url:
        push(counting, url)
        counting.start()
        wait_for(
            lambda: any("qconsume_ready" in each.metrics for each in receiver.pushes)
        )
        counting.consumers.publish_many([("bill", number) for number in range(30)])
        wait_for(lambda: len(counting.dead("bill")) == 20)
        assert counting.workers[0].stop()
    last = receiver.pushes[-1]
    assert last.samples == scrape(metrics_of(counting))
    assert last.samples["qconsume_messages_total", ("bill", "retry")] == 20
    assert last.samples["qconsume_dead_letters_total", ("bill", "ValueError")] == 10
    assert last.samples["qconsume_handler_seconds_count", ("bill",)] == 50
    shown = {name for each in receiver.pushes for name in each.metrics}
    assert {"qconsume_connected", "qconsume_worker_info"} <= shown


def test_sums_are_cumulated_since_the_first_count(counting: AppWithWorkers) -> None:
    counting.qconsume.consumer("bill", name="bill")(print)
    before = time.time()
    receiver = MetricReceiver()
    with receiver.serve() as url:
        push(counting, url)
        counting.start()
        for number in range(1, 4):
            counting.publish("bill", number)
            wait_for(functools.partial(find_last, receiver, ACKED, number))
    starts = set()
    for each in receiver.pushes:
        for metric in each.metrics.values():
            data = metric.histogram if metric.HasField("histogram") else metric.sum
            if data.data_points:
                assert data.aggregation_temporality == CUMULATIVE
            starts |= {point.start_time_unix_nano for point in data.data_points}
            assert metric.unit == metric_table.BY_NAME[metric.name].unit
            assert metric.description == metric_table.BY_NAME[metric.name].help
    assert len(starts) == 1
    assert before - 0.1 <= starts.pop() / 1e9 <= time.time()
    assert len({each.resource["service.instance.id"] for each in receiver.pushes}) == 1


@pytest.mark.parametrize("metric", metric_table.TABLE, ids=lambda each: each.name)
def test_a_name_is_the_same_after_its_way_to_prometheus(metric: t.Any) -> None:
    """The Collector, and Prometheus' own receiver, add a unit that a name lacks."""
    words = metric.name.split("_")
    assert metric.unit in ("", "s") or re.fullmatch(r"\{\w+\}", metric.unit)
    assert (metric.unit == "s") == ("seconds" in words)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert words.count("total") == (metric.kind == "counter")
    assert words.count("seconds") <= 1 and "ratio" not in words


def test_the_last_push_is_that_of_the_stop(counting: AppWithWorkers) -> None:
    counting.qconsume.consumer("bill", name="bill")(print)
    receiver = MetricReceiver()
    with receiver.serve() as url:
        push(counting, url, NEVER)
        counting.start()
        counting.publish("bill", 1)
        wait_for(lambda: scrape(metrics_of(counting)).get(ACKED))
        assert receiver.pushes == []
        assert counting.workers[0].stop()
        (only,) = receiver.pushes
        assert only.samples[ACKED] == 1

        counting.publish("elsewhere", 1, mandatory=False)  # The process goes on.
        counting.start()
        assert counting.workers[1].stop()
    assert receiver.pushes[1].samples["qconsume_published_total", ("confirmed",)] == 2
    assert receiver.pushes[1].resource == only.resource


def test_consuming_and_the_stop_go_on_while_a_collector_is_silent(
    counting: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[t.Any] = []
    counting.qconsume.consumer("bill", name="bill")(handled.append)
    receiver = MetricReceiver(silent=True)
    with receiver.serve() as url:
        push(counting, url)
        counting.start()
        wait_for(lambda: receiver.requests)
        counting.consumers.publish_many([("bill", number) for number in range(500)])
        wait_for(lambda: len(handled) == 500)
        began = time.monotonic()
        assert counting.workers[0].stop()
        assert time.monotonic() - began < TIMEOUT / 2
        assert receiver.pushes == []
    assert len(lines(caplog, logging.WARNING)) == 1


def test_an_outage_is_one_warning_and_loses_no_counts(
    counting: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    counting.qconsume.consumer("bill", name="bill")(print)
    receiver = MetricReceiver()
    receiver.status = "400 Bad Request"
    with receiver.serve() as url:
        push(counting, url)
        counting.start()
        counting.publish("bill", 1)
        wait_for(lambda: receiver.refused >= 3)
        receiver.status = "200 OK"
        wait_for(lambda: receiver.pushes)
        wait_for(lambda: lines(caplog, logging.INFO))
        assert counting.workers[0].stop()
    assert receiver.pushes[-1].samples[ACKED] == 1
    (warning,) = lines(caplog, logging.WARNING)
    assert "Cannot push the metrics; trying again every 0.05 s" in warning
    (info,) = lines(caplog, logging.INFO)
    assert "pushed again" in info


def test_a_collector_may_come_later(
    counting: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    counting.qconsume.consumer("bill", name="bill")(print)
    with MetricReceiver().serve() as url:
        pass  # Nothing listens at the port from now on.
    push_metrics(
        counting.app, lambda: OTLPMetricExporter(url, timeout=0.1), interval=0.05
    )
    counting.start()
    counting.publish("bill", 1)
    wait_for(lambda: lines(caplog, logging.WARNING))
    receiver = MetricReceiver()
    with receiver.serve(int(url.split(":")[2].split("/")[0])):
        wait_for(lambda: receiver.pushes)
        assert counting.workers[0].stop()
    assert receiver.pushes[-1].samples[ACKED] == 1
    assert len(lines(caplog, logging.WARNING)) == 1


def test_an_app_that_kills_all_greenlets_does_not_end_the_pushes(
    counting: AppWithWorkers,
) -> None:
    counting.qconsume.consumer("bill", name="bill")(print)
    receiver = MetricReceiver()
    with receiver.serve() as url:
        push(counting, url)
        counting.start()
        wait_for(lambda: receiver.pushes)
        found = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet)]
        pushing = [each for each in found if "BackgroundThread" in repr(each)]
        assert pushing
        gevent.killall(pushing, block=False)
        counting.publish("bill", 1)
        wait_for(functools.partial(find_last, receiver, ACKED, 1))


def test_an_exporter_that_cannot_be_created_is_a_warning(
    counting: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    counting.qconsume.consumer("bill", name="bill")(print)

    def fail() -> t.Any:
        raise OSError("no certificate")

    push_metrics(counting.app, fail, interval=0.02)
    counting.start()
    wait_for(lambda: lines(caplog, logging.WARNING))
    assert counting.workers[0].stop()
    (warning,) = lines(caplog, logging.WARNING)
    assert "OSError: no certificate" in warning


def test_a_folder_that_cannot_be_used_leaves_the_counts_of_the_process() -> None:
    worker_app = AppWithWorkers(QCONSUME_METRICS="/proc/nowhere/metrics")
    worker_app.qconsume.consumer("bill", name="bill")(print)
    receiver = MetricReceiver()
    with receiver.serve() as url:
        push(worker_app, url, NEVER)
        worker = worker_app.start()
        worker_app.publish("bill", 1)
        wait_for(lambda: scrape(metrics_of(worker_app)).get(ACKED))
        assert worker.stop()
    (only,) = receiver.pushes
    assert only.samples[ACKED] == 1


def test_a_folder_that_was_deleted_is_another_instance(tmp_path: pathlib.Path) -> None:
    """Else sums that lack the counts of ended processes would look like a restart."""
    folder = tmp_path / "metrics"
    worker_app = AppWithWorkers(QCONSUME_METRICS=str(folder))
    worker_app.qconsume.consumer("bill", name="bill")(print)
    receiver = MetricReceiver()

    def find_id() -> str:
        return receiver.pushes[-1].resource["service.instance.id"]

    with receiver.serve() as url:
        push(worker_app, url)
        worker = worker_app.start()
        worker_app.publish("bill", 1)
        wait_for(functools.partial(find_last, receiver, ACKED, 1))
        first = find_id()
        folder.rename(tmp_path / "gone")
        wait_for(lambda: find_id() != first)
        wait_for(functools.partial(find_last, receiver, ACKED, 1))
        assert worker.stop()
    assert find_id() != first


def test_an_id_of_the_environment_is_kept(
    counting: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7,zone=a")
    receiver = MetricReceiver()
    with receiver.serve() as url:
        push(counting, url, NEVER)
        counting.start()
        assert counting.workers[0].stop()
    (only,) = receiver.pushes
    assert only.resource["service.instance.id"] == "pod-7"
    assert (only.resource["service.name"], only.resource["zone"]) == ("shop", "a")


def test_the_interval_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    worker_app = AppWithWorkers(QCONSUME_METRICS=True)
    receiver = MetricReceiver()
    with receiver.serve() as url:
        push_metrics(worker_app.app, lambda: OTLPMetricExporter(url))
        worker = worker_app.start()
        wait_for(lambda: len(receiver.pushes) >= 2)
        assert worker.stop()


def test_an_sdk_that_is_off_pushes_nothing(
    counting: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    receiver = MetricReceiver()
    with receiver.serve() as url:
        push(counting, url, NEVER)
        counting.start()
        assert counting.workers[0].stop()
    assert receiver.requests == 0


@pytest.mark.parametrize("interval", [0.0, -1.0, 86_401.0, float("nan")])
def test_a_wrong_interval_is_an_error(interval: float) -> None:
    app = make_app(metrics=True)
    with pytest.raises(ConfigurationError, match="must be positive"):
        push_metrics(app, OTLPMetricExporter, interval=interval)


def test_other_mistakes_are_errors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="set 'QCONSUME_METRICS'"):
        push_metrics(make_app(), OTLPMetricExporter)
    instance: t.Any = OTLPMetricExporter("http://127.0.0.1:1/")
    with pytest.raises(ConfigurationError, match="such as its class"):
        push_metrics(make_app(metrics=True), instance)
    instance.shutdown()
    app = make_app(metrics=True)
    push_metrics(app, OTLPMetricExporter)
    with pytest.raises(ConfigurationError, match="pushed already"):
        push_metrics(app, OTLPMetricExporter)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1min")
    with pytest.raises(ConfigurationError, match="milliseconds"):
        push_metrics(make_app(metrics=True), OTLPMetricExporter)


WITHOUT_SDK = """
import sys
sys.modules["opentelemetry.sdk"] = None
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.integrations.otlp import push_metrics

app = Flask("shop")
app.config.update(QCONSUME_BROKER_URL="memory://", QCONSUME_METRICS=True)
QConsume(app)
push_metrics(app, print)
"""


@pytest.mark.process
def test_without_the_sdk_the_error_says_what_to_install() -> None:
    done = run_script(WITHOUT_SDK)
    assert "pip install opentelemetry-sdk" in done.stderr
    assert "ConfigurationError" in done.stderr
