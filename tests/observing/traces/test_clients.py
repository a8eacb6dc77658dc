"""Instrumentations of the broker's client create no spans beside ours."""

from __future__ import annotations

import typing as t

import pytest
from opentelemetry.instrumentation.redis import RedisInstrumentor
from redis import Redis

from ...harness.scripts import run_script
from ...running.conftest import AppWithWorkers
from ...waiting import wait_for
from .recorded import Spans

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("scheme", ["redis", "redis-streams"])
def test_spans_of_the_redis_client_are_only_those_of_the_app(
    worker_app: AppWithWorkers, spans: Spans, redis_url: str, scheme: str
) -> None:
    @worker_app.qconsume.consumer("bill", retry={"max_attempts": 2})
    def bill(body: t.Any) -> None:
        client.get("price")
        raise ValueError

    client = Redis.from_url(redis_url)
    worker_app.config["QCONSUME_BROKER_URL"] = redis_url.replace("redis", scheme, 1)
    worker_app.config["QCONSUME_RETRY"] = {"min_delay": 1.1, "max_delay": 2}
    RedisInstrumentor().instrument(tracer_provider=spans.provider)
    try:
        worker = worker_app.start()
        worker_app.publish("bill", 1)
        wait_for(lambda: "dead-letter bill" in spans.names)
        worker.stop()
        client.close()
    finally:
        RedisInstrumentor().uninstrument()
    found = {name for name in spans.names if "bill" not in name}
    assert found == {"GET"}, spans.names


KAFKA = """
from gevent import monkey; monkey.patch_all()
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.running.worker import Worker
from opentelemetry import trace
from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.waiting import wait_for

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
ConfluentKafkaInstrumentor().instrument()

app = Flask("shop")
app.config.update(QCONSUME_BROKER_URL=URL, QCONSUME_QUEUE_PREFIX=PREFIX)
qconsume = QConsume(app)
qconsume.consumer("bill")(lambda body: None)
worker = Worker(app)
worker.start()
app.extensions["qconsume"].publish("bill", 0)
wait_for(lambda: len(exporter.get_finished_spans()) == 3)
worker.stop()
print(sorted(span.name.split()[0] for span in exporter.get_finished_spans()))
print(len({span.context.trace_id for span in exporter.get_finished_spans()}))
"""


@pytest.mark.process
def test_kafkas_client_creates_no_spans_and_no_headers(
    kafka_url: str, kafka_prefix: str
) -> None:
    done = run_script(f"URL, PREFIX = {kafka_url!r}, {kafka_prefix!r}\n{KAFKA}")
    assert done.stdout.splitlines() == ["['ack', 'process', 'publish']", "1"], (
        done.stderr
    )
