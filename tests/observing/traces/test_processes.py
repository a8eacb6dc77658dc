"""Tracing in processes that were forked: ``--processes``, and gunicorn's workers."""

from __future__ import annotations

import pathlib
import sys
import typing as t
import urllib.request

import pytest

from ...cli.commands import Commands
from ...cli.commands import Running
from ...harness.scripts import run_script
from ...servers.ports import free_port
from ...waiting import wait_for
from .collector import Collector

pytestmark = pytest.mark.process

SHOP = """
import os
from flask import Flask
from flask_qconsume import QConsume
from opentelemetry.instrumentation.flask import FlaskInstrumentor

qconsume = QConsume()

def set_up_tracing():
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

@qconsume.consumer("bill")
def bill(body):
    print("billed", body, flush=True)

def create_app():
    if "LATE" not in os.environ:
        set_up_tracing()
    app = Flask("shop")
    FlaskInstrumentor().instrument_app(app)
    app.config.from_prefixed_env()
    qconsume.init_app(app)

    @app.get("/order")
    def order():
        return qconsume.publish("bill", {})

    return app
"""

GUNICORN = """
import shop
from flask_qconsume.integrations.gunicorn import post_worker_init, worker_exit

def post_fork(server, worker):
    shop.set_up_tracing()
"""


@pytest.fixture
def shop(
    tmp_path: pathlib.Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[tuple[Commands, Collector]]:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "gunicorn_conf.py").write_text(GUNICORN)
    monkeypatch.setenv("HOME", str(tmp_path))  # Gunicorn puts its control socket there.
    collector = Collector()
    with collector.serve() as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url)
        yield Commands(tmp_path, {"BROKER_URL": redis_url}), collector


def order_often(address: str, running: Running, collector: Collector) -> None:
    for number in range(1, 11):
        with urllib.request.urlopen(f"http://{address}/order", timeout=20) as response:
            assert response.status == 200
        running.wait_for("billed", number)
    assert running.end() == 0, running.output
    wait_for(lambda: len(collector.spans) == 40, 20, message=lambda: running.output)
    names = [span.name for span in collector.spans]
    assert sorted(set(names)) == [
        "GET /order",
        "ack bill",
        "process bill",
        "publish qconsume:bill",
    ]
    assert len({span.trace_id for span in collector.spans}) == 10


@pytest.mark.broker
def test_several_processes(shop: tuple[Commands, Collector]) -> None:
    commands, collector = shop
    address = f"127.0.0.1:{free_port()}"
    with commands.start("run", "--processes", "2", "--web", address) as running:
        running.wait_for("Serving on", 2)
        order_often(address, running, collector)


@pytest.mark.broker
def test_gunicorn_with_an_sdk_that_is_set_up_after_the_fork(
    shop: tuple[Commands, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, collector = shop
    monkeypatch.setenv("LATE", "1")
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "-b", address, "-k", "gevent"]
    command += ["-w", "2", "-c", "gunicorn_conf.py", "shop:create_app()"]
    with commands.spawn(command) as running:
        running.wait_for("consuming the queue 'bill'", 2)
        order_often(address, running, collector)


FORKED = """
import os
from flask import Flask
from flask_qconsume import QConsume
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

app = Flask("shop")
app.config.update(TESTING=True, QCONSUME_BROKER_URL="memory://")
qconsume = QConsume(app)
qconsume.consumer("bill")(print)
consumers = app.extensions["qconsume"]
consumers.publish("bill", 1)
assert consumers.events.publishing == ()
if child := os.fork():
    _, status = os.waitpid(child, 0)
    assert status == 0
else:
    provider = TracerProvider()
    exporter = ConsoleSpanExporter(formatter=lambda span: span.name + "\\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    consumers.publish("bill", 1)
    consumers.publish("bill", 1)
    os._exit(0)
"""


def test_each_process_looks_for_an_sdk_at_its_first_publish() -> None:
    done = run_script(FORKED)
    assert done.stdout.splitlines() == ["publish qconsume:bill"] * 2, done.stderr


WITHOUT_METADATA = """
from gevent import monkey; monkey.patch_all()
import importlib.metadata

def find_version(name):
    raise importlib.metadata.PackageNotFoundError(name)

from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from flask_qconsume import QConsume
from flask_qconsume.running.worker import Worker

trace.set_tracer_provider(TracerProvider())
importlib.metadata.version = find_version
app = Flask("copied")
app.config.update(QCONSUME_BROKER_URL="memory://", QCONSUME_METRICS=True)
QConsume(app)
worker = Worker(app)
worker.start()
print(len(app.extensions["qconsume"].events.handling), worker.stop())
"""


def test_an_app_may_run_without_the_metadata_of_its_packages() -> None:
    """For example, in an image to which the packages were copied."""
    done = run_script(WITHOUT_METADATA)
    assert done.stdout == "1 True\n", done.stderr


THREADS = """
import sys, threading
from flask import Flask
from flask_qconsume import QConsume, signals
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)

def hear(sender, message): ...


class Propagator(TraceContextTextMapPropagator):
    @property
    def fields(self):
        threading.Event().wait(0.01)  # Other threads find the SDK meanwhile.
        return super().fields

propagate.set_global_textmap(Propagator())
trace.set_tracer_provider(TracerProvider())
for _ in range(20):
    app = Flask("shop")
    app.config.update(QCONSUME_BROKER_URL="memory://", TESTING=True)
    qconsume = QConsume(app)
    qconsume.add_consumer("bill", print, name="bill")
    consumers = app.extensions["qconsume"]

    def publish():
        barrier.wait()
        consumers.publish("bill", 1)

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    signals.message_published.connect(hear, app)
    for thread in threads:
        thread.join()
    found = [type(each.__self__).__name__ for each in consumers.events.publishing]
    print(*sorted(found))
"""


def test_threads_that_publish_first_find_the_sdk_once() -> None:
    done = run_script(THREADS, measured=False)
    found = {*done.stdout.splitlines()}
    assert found == {"PublishTracer _Published"}, done.stderr
