"""The samples of a scrape, in both formats."""

from __future__ import annotations

import time
import typing as t

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from flask_qconsume import ConfigurationError
from flask_qconsume import Message
from flask_qconsume.extension import get_app_consumers
from flask_qconsume.handling.result import Result
from flask_qconsume.integrations.metrics import create_collector
from flask_qconsume.observing import metric_table
from flask_qconsume.observing.counters import Counters
from flask_qconsume.observing.metric_folder import ProcessGauges
from flask_qconsume.observing.metric_folder import Snapshot
from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.prometheus import Exposition
from flask_qconsume.observing.series import Series
from flask_qconsume.observing.series import make_gauge
from flask_qconsume.outcomes import Ack

from ..apps import make_app
from ..harness.scripts import run_script
from ..waiting import wait_for
from .samples import parse
from .samples import scrape
from .samples import select
from .test_counters import consumer as consumer

ACCEPTED = {
    "text/plain": parse_plain,
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3": (
        parse_openmetrics
    ),
}


@pytest.mark.parametrize("accept", list(ACCEPTED))
def test_a_scrapes_text_is_valid_in_both_formats(accept: str, consumer: t.Any) -> None:
    metrics = Metrics()
    counters = Counters(metrics)
    message = Message(b"", "bill", timestamp=time.time() - 1)
    counters.decided(consumer, message, Result(Ack()), 0.02)
    counters.settling(consumer, "ack", [message])
    counters.publishing([])([None])
    gauges = [
        make_gauge(metric, 1, *(f'"{name}\\\n' for name in metric.labels))
        for metric in metric_table.TABLE
        if metric.kind == "gauge"
    ]
    metrics.show("worker", gauges)
    kind, body = Exposition(metrics).render(accept)
    assert ("openmetrics" in kind) == ("openmetrics" in accept)
    found = {family.name: family for family in ACCEPTED[accept](body.decode())}
    for metric in metric_table.TABLE:
        if metric.labels[-1:] == ("error",):
            continue  # No error has been counted.
        if metric is metric_table.HUB_BLOCKED_SECONDS:
            continue  # Counted by workers only.
        family = found[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        labels = set(family.samples[0].labels) - {"le"}
        assert labels == set(metric.labels)


def test_a_scrape_shows_what_was_counted_until_a_second_ago(consumer: t.Any) -> None:
    metrics = Metrics()
    counters = Counters(metrics)
    exposition = Exposition(metrics)

    def count() -> None:
        counters.publishing([])([None])

    def read() -> float:
        _, body = exposition.render("")
        return parse(body.decode())["qconsume_published_total", ("confirmed",)]

    count()
    assert read() == 1
    count()
    began = time.monotonic()
    assert read() == 1 or time.monotonic() - began > 1
    wait_for(lambda: read() == 2)


def test_an_app_may_add_the_collector_to_a_registry_of_its_own() -> None:
    app = make_app(metrics=True)
    get_app_consumers(app).publish("nowhere", 1, mandatory=False)
    registry = CollectorRegistry()
    Counter("shop_orders", "Orders.", registry=registry).inc()
    registry.register(create_collector(app))
    samples = parse(generate_latest(registry).decode())
    assert samples["shop_orders_total", ()] == 1
    assert samples["qconsume_published_total", ("confirmed",)] == 1


def test_without_the_setting_there_is_no_collector() -> None:
    with pytest.raises(ConfigurationError, match="QCONSUME_METRICS"):
        create_collector(make_app())


class Given(Metrics):
    """Metrics of several processes, as they were read."""

    def __init__(self, *gauges: ProcessGauges, counts: t.Sequence[Series] = ()) -> None:
        super().__init__("/nowhere")
        self._snapshot = Snapshot(list(counts), list(gauges))

    def read(self) -> Snapshot:
        return self._snapshot


def test_gauges_of_processes_have_their_pid_and_of_queues_the_newest_counts() -> None:
    lag = metric_table.QUEUE_LAG
    shown = [
        ProcessGauges(
            pid,
            written,
            [
                make_gauge(metric_table.IN_FLIGHT, pid, "bill"),
                make_gauge(lag, 10 * pid, "bill", "billing"),
            ],
        )
        for pid, written in ((1, 1_000.0), (2, 3_000.0), (3, 2_000.0))
    ]
    samples = scrape(Given(*shown))
    assert select(samples, "qconsume_in_flight") == {
        ("bill", "1"): 1,
        ("bill", "2"): 2,
        ("bill", "3"): 3,
    }
    assert select(samples, lag.name) == {("bill", "billing"): 20}


def test_series_of_another_version_are_left_out() -> None:
    foreign = [
        Series("qconsume_future_total", (), (), (1,)),
        Series("qconsume_published_total", ("confirmed", "more"), (), (1,)),
        Series("qconsume_confirm_seconds", (), (1.0,), (1, 2, 3)),
        Series("qconsume_published_total", ("confirmed",), (), (4,)),
    ]
    samples = scrape(Given(counts=foreign))
    assert samples == {("qconsume_published_total", ("confirmed",)): 4}


SETTING_UP = """
import sys
from flask import Flask
from flask_qconsume import QConsume

app = Flask("shop")
app.config.update(QCONSUME_BROKER_URL="memory://", QCONSUME_METRICS=True, TESTING=True)
qconsume = QConsume(app)
qconsume.add_consumer("bill", print, name="bill")
app.extensions["qconsume"].publish("bill", 1)
print("prometheus_client" in sys.modules)
"""


@pytest.mark.process
def test_the_package_is_imported_at_the_first_scrape_only() -> None:
    """When it is imported, it decides how the app's own metrics are kept."""
    done = run_script(SETTING_UP)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.process
def test_without_the_package_the_error_says_what_to_install() -> None:
    missing = "import sys\nsys.modules['prometheus_client'] = None\n"
    done = run_script(missing + SETTING_UP)
    assert "Install 'Flask-QConsume[metrics]'" in done.stderr
