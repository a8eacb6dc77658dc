"""Pushing metrics from several processes, and from those that only publish."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from flask_qconsume.extension import get_app_consumers

from ..apps import make_app
from ..cli.commands import Commands
from ..harness.scripts import run_script
from ..waiting import wait_for
from .otlp_receiver import MetricReceiver
from .samples import select

pytestmark = pytest.mark.process

PUBLISHED = "qconsume_published_total"

SHOP = """
import os
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.integrations.otlp import push_metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

qconsume = QConsume()

@qconsume.consumer("bill", name="bill")
def bill(body):
    print("billed", body, flush=True)

def create_exporter():
    return OTLPMetricExporter(headers={"x-pid": str(os.getpid())})

def create_app(interval=None, **config):
    app = Flask("shop")
    app.config.from_prefixed_env()
    app.config.update(config)
    qconsume.init_app(app)
    push_metrics(app, create_exporter, interval=interval)
    return app
"""

#: Publishes a message for each line of its input.
PUBLISHER = (
    SHOP
    + """
import sys
app = create_app(
    interval=float(sys.argv[1]),
    TESTING=True,
    QCONSUME_BROKER_URL="memory://",
    QCONSUME_METRICS=sys.argv[2] or True,
)
for line in sys.stdin:
    app.extensions["qconsume"].publish("bill", line)
    print("published", flush=True)
"""
)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[MetricReceiver]:
    receiver = MetricReceiver()
    with receiver.serve() as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", url)
        yield receiver


class Publisher:
    """A process that only publishes."""

    def __init__(self, interval: float, folder: pathlib.Path | str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(interval), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def publish(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("order\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "published\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        self._process.communicate()  # Closes its input, which ends it.
        assert self._process.returncode == 0


def find_published(receiver: MetricReceiver) -> float | None:
    samples = receiver.pushes[-1].samples if receiver.pushes else {}
    return samples.get((PUBLISHED, ("confirmed",)))


def test_one_of_two_processes_pushes_the_sums_until_it_is_killed(
    receiver: MetricReceiver, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "metrics"
    started = [Publisher(0.1, folder) for _ in range(2)]
    publishers = {each.pid: each for each in started}
    for each in publishers.values():
        each.publish()
    wait_for(lambda: find_published(receiver) == 2, 30)
    wait_for(lambda: len(receiver.pushes) >= 6, 30)
    (holder,) = {push.pid for push in receiver.pushes}

    publishers.pop(holder).kill()
    (other,) = publishers.values()
    wait_for(lambda: receiver.pushes[-1].pid == other.pid, 30)
    other.publish()
    wait_for(lambda: find_published(receiver) == 3, 30)
    assert len({each.resource["service.instance.id"] for each in receiver.pushes}) == 1
    other.end()


def test_processes_that_stop_push_what_all_have_counted(
    receiver: MetricReceiver, tmp_path: pathlib.Path
) -> None:
    publishers = [Publisher(600, tmp_path / "metrics") for _ in range(2)]
    for each in publishers:
        each.publish()
    assert receiver.pushes == []
    publishers[0].end()
    assert find_published(receiver) == 2
    publishers[1].publish()
    publishers[1].end()
    assert find_published(receiver) == 3


def test_a_process_without_a_folder_pushes_its_own_counts_at_its_end(
    receiver: MetricReceiver,
) -> None:
    publishers = [Publisher(600) for _ in range(2)]
    for each in publishers:
        each.publish()
        each.end()
    assert [select(push.samples, PUBLISHED) for push in receiver.pushes] == [
        {("confirmed",): 1}
    ] * 2
    assert len({each.resource["service.instance.id"] for each in receiver.pushes}) == 2


@pytest.mark.broker
def test_the_last_push_of_several_workers_has_all_counts(
    receiver: MetricReceiver, tmp_path: pathlib.Path, redis_url: str
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    commands = Commands(tmp_path, {"BROKER_URL": redis_url, "METRICS": True})
    with commands.start("run", "--processes", "2") as running:
        running.wait_for("consuming the queue 'bill'", 2)
        app = make_app(broker_url=redis_url)
        get_app_consumers(app).publish_many([("bill", n) for n in range(20)])
        get_app_consumers(app).close()
        running.wait_for("billed", 20)
        assert running.end(signal.SIGTERM) == 0
    last = receiver.pushes[-1].samples
    assert last["qconsume_messages_total", ("bill", "ack")] == 20
    assert len({each.resource["service.instance.id"] for each in receiver.pushes}) == 1


PATCH = "from gevent import monkey; monkey.patch_all()\n"

FORKED = (
    SHOP
    + """
memory = {"TESTING": True, "QCONSUME_BROKER_URL": "memory://"}
app = create_app(600, **memory, QCONSUME_METRICS=True)
app.extensions["qconsume"].publish("bill", 1)
if child := os.fork():
    _, status = os.waitpid(child, 0)
    assert status == 0
else:
    app.extensions["qconsume"].publish("bill", 1)
    app.extensions["qconsume"].publish("bill", 1)
"""
)


@pytest.mark.parametrize("first", ["", PATCH])
def test_a_forked_child_pushes_its_own_counts(
    receiver: MetricReceiver, first: str
) -> None:
    done = run_script(first + FORKED)
    assert done.returncode == 0, done.stderr
    assert len({each.pid for each in receiver.pushes}) == 2
    assert [select(push.samples, PUBLISHED) for push in receiver.pushes] == [
        {("confirmed",): 2},
        {("confirmed",): 1},
    ]
    assert len({each.resource["service.instance.id"] for each in receiver.pushes}) == 2


GRPC_COLLECTOR = """
import sys
from concurrent import futures
import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc

class Servicer(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == "qconsume_messages_total":
                print(max(point.as_int for point in metric.sum.data_points), flush=True)
        return metrics_service_pb2.ExportMetricsServiceResponse()

server = grpc.server(futures.ThreadPoolExecutor(2))
metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Servicer(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
"""

GRPC = """
from gevent import monkey; monkey.patch_all()
import socket, time
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.integrations.otlp import push_metrics
from flask_qconsume.running.worker import Worker
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from tests.waiting import wait_for

begun = []

def create_exporter():
    begun.append(True)
    return OTLPMetricExporter(endpoint=f"http://127.0.0.1:{PORT}", insecure=True)

app = Flask("shop")
app.config.update(TESTING=True, QCONSUME_BROKER_URL="memory://", QCONSUME_METRICS=True)
qconsume = QConsume(app)
handled = []
qconsume.consumer("bill")(handled.append)
push_metrics(app, create_exporter, interval=0.1)
worker = Worker(app)
worker.start()
wait_for(lambda: begun)
app.extensions["qconsume"].publish_many([("bill", n) for n in range(200)])
wait_for(lambda: len(handled) == 200)
began = time.monotonic()
worker.stop()
print("stopped", time.monotonic() - began < 8, flush=True)
"""


def test_a_collector_gets_the_metrics_by_grpc() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GRPC_COLLECTOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as collector:
        assert collector.stdout is not None
        port = int(collector.stdout.readline())
        done = run_script(f"PORT = {port}\n{GRPC}")
        assert done.stdout == "stopped True\n", done.stderr
        counts, _ = collector.communicate()  # Closes its input, which ends it.
    assert counts.splitlines()[-1] == "200"


SILENT = """
import socket
listening = socket.create_server(("127.0.0.1", 0))  # Accepts, but never answers.
PORT = listening.getsockname()[1]
"""


def test_a_collector_that_is_silent_by_grpc_blocks_neither_handlers_nor_the_stop() -> (
    None
):
    done = run_script(SILENT + GRPC)
    assert done.stdout == "stopped True\n", done.stderr
    assert done.returncode == 0
