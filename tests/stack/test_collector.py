"""The shop's traces and logs, through a real Collector with our configuration file."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import socket
import time
import typing as t

import msgpack
import pytest

from example_app.tests.running import Shop

from ..servers import Collector
from ..servers import Jaeger
from ..servers.fixtures import refuse
from ..waiting import wait_for
from .files import COLLECTOR
from .files import run

if t.TYPE_CHECKING:
    from .log_backend import LogBackend

pytestmark = pytest.mark.long


@pytest.fixture
def loki() -> t.Iterator[LogBackend]:
    if importlib.util.find_spec("opentelemetry.proto") is None:
        refuse("opentelemetry-proto is not installed")
    from .log_backend import LogBackend

    with LogBackend() as loki:
        yield loki


@pytest.fixture
def jaeger(tmp_path: pathlib.Path) -> t.Iterator[Jaeger]:
    with Jaeger(tmp_path / "jaeger") as jaeger:
        yield jaeger


@pytest.fixture
def collector(
    tmp_path: pathlib.Path, jaeger: Jaeger, loki: LogBackend
) -> t.Iterator[Collector]:
    to = {"JAEGER_ENDPOINT": jaeger.url, "LOKI_ENDPOINT": loki.url}
    with Collector(tmp_path / "collector", COLLECTOR, to) as collector:
        yield collector


@pytest.fixture
def shop(
    tmp_path: pathlib.Path, redis_url: str, collector: Collector
) -> t.Iterator[Shop]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.otlp}",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "FLASK_QCONSUME_LOGGING": "json",
        "PYTHONWARNINGS": "default",
    }
    with Shop(tmp_path, redis_url, environment=environment) as shop:
        yield shop


def test_the_collector_accepts_its_configuration(tmp_path: pathlib.Path) -> None:
    if reason := Collector.missing():
        refuse(reason)
    program = str(Collector.program())
    run(program, "validate", f"--config={COLLECTOR}")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(COLLECTOR.read_text("utf-8").replace("endpoint:", "endpont:", 1))
    with pytest.raises(AssertionError, match="endpont"):
        run(program, "validate", f"--config={wrong}")


def test_one_trace_leads_from_the_request_to_the_last_consumer(
    shop: Shop, jaeger: Jaeger
) -> None:
    shop.wait_until(shop.order(), "billed", "mail.sent", "stock.reserved")
    shop.wait_until(shop.order(card="tok_silent"), "rejected", "mail.sent")

    wait_for(
        lambda: any(
            has(names, "billing", "reservations", "mail", "timeline")
            for names in list_traces(jaeger)
        ),
        timeout=30.0,
        message=lambda: f"{list_traces(jaeger)}\n{shop.output()[-3000:]}",
    )


def list_traces(jaeger: Jaeger) -> list[set[str]]:
    """Return the names of the spans of each trace that begins with an order."""
    traces = [
        {span["operationName"] for span in trace["spans"]}
        for trace in jaeger.find_traces("shop")
    ]
    return [names for names in traces if "POST /orders/" in names]


def has(names: set[str], *parts: str) -> bool:
    return all(any(part in name for name in names) for part in parts)


def test_the_shops_lines_arrive_as_docker_sends_them(
    shop: Shop, collector: Collector, loki: LogBackend
) -> None:
    shop.wait_until(shop.order(card="tok_silent"), "rejected")
    lines = [line for line in shop.output().splitlines() if line.startswith("{")]
    assert len(lines) >= 3
    host, _, port = collector.fluent.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        for line in lines:
            connection.sendall(msgpack.packb(make_record(line)))
    wait_for(
        lambda: len(loki.lines) >= len(lines),
        timeout=30.0,
        message=lambda: f"{len(loki.lines)} of {len(lines)}; {collector.output()}",
    )
    assert {service for service, _ in loki.lines} == {"shop"}
    bodies = [record.body.string_value for _, record in loki.lines]
    assert sorted(bodies) == sorted(lines)
    assert any("message_id" in json.loads(body) for body in bodies)


def make_record(line: str) -> list[t.Any]:
    """Make a record of the log driver ``fluentd``: tag, time, and the line's origin."""
    found = {
        "container_id": "c0ffee",
        "container_name": "/shop-consumers-1",
        "source": "stderr",
        "log": line,
    }
    return ["shop-consumers-1", int(time.time()), found]
