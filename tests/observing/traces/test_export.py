"""Exporting spans: by OTLP over HTTP and gRPC, to collectors that answer or do not."""

from __future__ import annotations

import subprocess
import sys
import typing as t

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from benchmarks.order_trace import create_app
from benchmarks.order_trace import place_order

from ...harness.scripts import run_script
from ...running.conftest import AppWithWorkers
from ...waiting import wait_for
from .collector import Collector
from .recorded import Spans
from .test_order import TREE


def export(spans: Spans, url: str, timeout: float) -> BatchSpanProcessor:
    exporter = OTLPSpanExporter(url, timeout=timeout)
    processor = BatchSpanProcessor(
        exporter, max_queue_size=64, max_export_batch_size=32, schedule_delay_millis=20
    )
    spans.provider.add_span_processor(processor)
    return processor


def test_a_collector_gets_the_trace_of_an_order(spans: Spans) -> None:
    collector = Collector()
    with collector.serve() as url:
        processor = export(spans, url, timeout=10)
        place_order(create_app())
        processor.force_flush()
        processor.shutdown()
    by_id = {span.span_id: span.name for span in collector.spans}
    tree = {
        span.name: by_id[span.parent_span_id]
        for span in collector.spans
        if span.parent_span_id
    }
    assert tree == TREE
    assert len({span.trace_id for span in collector.spans}) == 1
    ours = {
        scope.schema_url
        for scope in collector.scopes
        if scope.scope.name == "flask_qconsume"
    }
    assert ours == {"https://opentelemetry.io/schemas/1.44.0"}


def test_consuming_goes_on_while_a_collector_does_not_answer(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    handled: list[t.Any] = []
    worker_app.qconsume.consumer("bill")(handled.append)
    collector = Collector(silent=True)
    with collector.serve() as url:
        processor = export(spans, url, timeout=60)
        worker_app.start()
        worker_app.publish("bill", 0)
        wait_for(lambda: collector.requests)
        worker_app.consumers.publish_many([("bill", number) for number in range(500)])
        wait_for(lambda: len(handled) == 501)
        assert worker_app.workers[0].stop()
        assert not collector.answered
    processor.shutdown()


def test_consuming_goes_on_without_a_collector(
    worker_app: AppWithWorkers, spans: Spans
) -> None:
    handled: list[t.Any] = []
    worker_app.qconsume.consumer("bill")(handled.append)
    with Collector().serve() as url:
        pass  # Nothing listens at the port from now on.
    processor = export(spans, url, timeout=0.5)
    worker_app.start()
    worker_app.consumers.publish_many([("bill", number) for number in range(500)])
    wait_for(lambda: len(handled) == 500)
    assert worker_app.workers[0].stop()
    processor.shutdown()


GRPC = """
from gevent import monkey; monkey.patch_all()
import socket
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.running.worker import Worker
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tests.waiting import wait_for

listening = socket.create_server(("127.0.0.1", 0))  # Accepts, but never answers.
port = listening.getsockname()[1]
exporting = []

class Exporter(OTLPSpanExporter):
    def export(self, spans):
        exporting.append("begun")
        try:
            return super().export(spans)
        finally:
            exporting.append("over")

provider = TracerProvider()
exporter = Exporter(endpoint=f"http://127.0.0.1:{port}", insecure=True, timeout=20)
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=20))
trace.set_tracer_provider(provider)

app = Flask("shop")
app.config.update(TESTING=True, QCONSUME_BROKER_URL="memory://")
qconsume = QConsume(app)
handled = []
qconsume.consumer("bill")(handled.append)
worker = Worker(app)
worker.start()
app.extensions["qconsume"].publish("bill", 0)
wait_for(lambda: exporting)
app.extensions["qconsume"].publish_many([("bill", n) for n in range(200)])
wait_for(lambda: len(handled) == 201)
worker.stop()
print(exporting, flush=True)
import os
os._exit(0)  # The exporter would wait at the end of the process.
"""


COLLECTOR = """
import sys
from concurrent import futures
import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    print(span.name, flush=True)
        return trace_service_pb2.ExportTraceServiceResponse()

server = grpc.server(futures.ThreadPoolExecutor(2))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
"""

ORDER_BY_GRPC = """
from gevent import monkey; monkey.patch_all()
from benchmarks.order_trace import create_app, place_order
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{PORT}", insecure=True)
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)
place_order(create_app())
assert provider.force_flush()
"""


@pytest.mark.process
def test_a_collector_gets_the_trace_of_an_order_by_grpc() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COLLECTOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as collector:
        assert collector.stdout is not None
        port = int(collector.stdout.readline())
        done = run_script(f"PORT = {port}\n{ORDER_BY_GRPC}")
        assert done.returncode == 0, done.stderr
        names, _ = collector.communicate()  # Closes its input, which ends it.
    assert set(names.splitlines()) == {*TREE, "POST /orders"}


@pytest.mark.process
def test_a_collector_that_is_silent_by_grpc_blocks_no_handler() -> None:
    done = run_script(GRPC)
    assert done.stdout.strip() == "['begun']", done.stderr
