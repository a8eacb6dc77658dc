"""Each extra alone is enough for what it is for; so are the lowest versions."""

from __future__ import annotations

import configparser
import pathlib

import pytest

from ..test_repository import ROOT
from .conftest import Install
from .environments import Environment
from .shops import check_gunicorn
from .shops import check_processes
from .shops import check_web

pytestmark = pytest.mark.long

#: Extras that users ask for. The other two are for us: the environments of tox have
#: "tests", and "docs" builds the pages there, with nothing beside it.
EXTRAS = {
    "",
    "redis",
    "kafka",
    "gunicorn",
    "logs",
    "metrics",
    "protobuf",
    "sentry",
    "speed",
    "sql",
    "otel",
    "example",
}

OTEL = """
from flask import Flask
from flask_qconsume import QConsume

app = Flask(__name__)
app.config.update(
    TESTING=True, QCONSUME_BROKER_URL="memory://", QCONSUME_TRACING=True
)
qconsume = QConsume(app)
qconsume.add_consumer("teas", print, name="teas")
app.extensions["qconsume"].publish("teas", "oolong")
"""

SENTRY = """
import sentry_sdk
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.integrations.sentry import report_failures
from sentry_sdk.transport import Transport

sent = []
class Kept(Transport):
    def capture_envelope(self, envelope):
        sent.append(envelope.get_event())

sentry_sdk.init("http://key@127.0.0.1:9/1", transport=Kept({}))
app = Flask(__name__)
app.config["QCONSUME_BROKER_URL"] = "memory://"
qconsume = QConsume(app)
qconsume.add_consumer("teas", int, name="teas")
report_failures(app)
qconsume.test_client(app).deliver("teas", "oolong")
(event,) = sent
assert event["tags"]["consumer"] == "teas"
"""

METRICS = """
from flask import Flask
from flask_qconsume import QConsume
from flask_qconsume.observing.metrics import get_metrics
from flask_qconsume.observing.prometheus import Exposition

app = Flask(__name__)
app.config.update(QCONSUME_BROKER_URL="memory://", QCONSUME_METRICS=True, TESTING=True)
qconsume = QConsume(app)
qconsume.add_consumer("teas", print, name="teas")
app.extensions["qconsume"].publish("teas", "oolong")
for accept in ("text/plain", "application/openmetrics-text"):
    kind, body = Exposition(get_metrics(app)).render(accept)
    assert kind.startswith(accept), kind
    assert b'qconsume_published_total{outcome="confirmed"} 1.0' in body, body
"""

PROTOBUF = """
from flask import Flask
from flask_qconsume import Ack, QConsume
from google.protobuf.wrappers_pb2 import StringValue

app = Flask(__name__)
app.config["QCONSUME_BROKER_URL"] = "memory://"
qconsume = QConsume(app)
got = []
qconsume.add_consumer("teas", got.append, name="teas", schema=StringValue)
result = qconsume.test_client(app).deliver("teas", StringValue(value="oolong"))
assert result.outcome == Ack(), result
assert got == [StringValue(value="oolong")]
"""

SPEED = """
import sys
from flask import Flask
from flask_qconsume import Ack, QConsume

app = Flask(__name__)
app.config["QCONSUME_BROKER_URL"] = "memory://"
qconsume = QConsume(app)
got = []
qconsume.add_consumer("teas", got.append, name="teas")
result = qconsume.test_client(app).deliver("teas", b'{"name": "oolong"}')
assert result.outcome == Ack(), result
assert got == [{"name": "oolong"}]
assert "msgspec" in sys.modules
"""

LOGS = """
import json, logging
from flask_qconsume.observing.json_formatter import JsonFormatter

record = logging.makeLogRecord({"msg": "brewed", "tea": "oolong"})
assert json.loads(JsonFormatter().format(record))["tea"] == "oolong"
"""

#: Say which Flask is installed, as a requirement.
FLASK = "from importlib.metadata import version; print('flask>=' + version('flask'))"


def test_every_extra_is_tried() -> None:
    found = {*setup_cfg()["options.extras_require"], ""}
    assert found == EXTRAS | {"tests", "docs"}


def test_nothing_more_is_enough_for_memory_and_rabbitmq(
    install: Install, tmp_path: pathlib.Path, rabbitmq_url: str
) -> None:
    environment = install("")
    check_web(environment, tmp_path, {"BROKER_URL": "memory://"})
    check_web(environment, tmp_path, {"BROKER_URL": rabbitmq_url})


def test_redis(install: Install, tmp_path: pathlib.Path, redis_url: str) -> None:
    environment = install("redis")
    check_redis(environment, tmp_path, redis_url)
    config = {"BROKER_URL": redis_url, "QUEUE_PREFIX": "processes."}
    check_processes(environment, tmp_path, config)


def test_kafka(
    install: Install, tmp_path: pathlib.Path, kafka_url: str, kafka_prefix: str
) -> None:
    check_kafka(install("kafka"), tmp_path, kafka_url, kafka_prefix)


def test_gunicorn(install: Install, tmp_path: pathlib.Path) -> None:
    check_gunicorn(install("gunicorn"), tmp_path)


def test_metrics(install: Install, tmp_path: pathlib.Path) -> None:
    install("metrics").run("python", "-W", "error", "-c", METRICS, folder=tmp_path)


def test_protobuf(install: Install, tmp_path: pathlib.Path) -> None:
    install("protobuf").run("python", "-W", "error", "-c", PROTOBUF, folder=tmp_path)


def test_logs(install: Install, tmp_path: pathlib.Path) -> None:
    install("logs").run("python", "-W", "error", "-c", LOGS, folder=tmp_path)


def test_sentry(install: Install, tmp_path: pathlib.Path) -> None:
    install("sentry").run("python", "-W", "error", "-c", SENTRY, folder=tmp_path)


def test_speed(install: Install, tmp_path: pathlib.Path) -> None:
    install("speed").run("python", "-W", "error", "-c", SPEED, folder=tmp_path)


def test_sql(install: Install, tmp_path: pathlib.Path, postgresql_url: str) -> None:
    """The README's shop keeps its messages in a file, unless it is told otherwise."""
    environment = install("sql")
    check_web(environment, tmp_path, {})
    check_processes(environment, tmp_path, {})
    assert (tmp_path / "instance" / "qconsume.db").exists()
    check_web(environment, tmp_path, {"BROKER_URL": postgresql_url})


def test_otel(install: Install, tmp_path: pathlib.Path) -> None:
    """Without an SDK, a publish creates no span, and needs no more than the API."""
    install("otel").run("python", "-W", "error", "-c", OTEL, folder=tmp_path)


def test_the_lowest_versions(
    install_lowest: Install,
    tmp_path: pathlib.Path,
    rabbitmq_url: str,
    redis_url: str,
    kafka_url: str,
    kafka_prefix: str,
    postgresql_url: str,
) -> None:
    extras = "redis,kafka,gunicorn,logs,metrics,protobuf,sentry,speed,sql,otel"
    environment = install_lowest(extras)
    assert environment.run("python", "-c", FLASK, folder=tmp_path).strip() in required()
    check_web(environment, tmp_path, {"BROKER_URL": rabbitmq_url})
    check_redis(environment, tmp_path, redis_url)
    check_kafka(environment, tmp_path, kafka_url, kafka_prefix)
    check_web(environment, tmp_path, {})
    check_web(environment, tmp_path, {"BROKER_URL": postgresql_url})
    check_gunicorn(environment, tmp_path)
    environment.run("python", "-W", "error", "-c", PROTOBUF, folder=tmp_path)
    environment.run("python", "-W", "error", "-c", SPEED, folder=tmp_path)
    environment.run("python", "-W", "error", "-c", SENTRY, folder=tmp_path)
    environment.run("python", "-W", "error", "-c", LOGS, folder=tmp_path)
    environment.run("python", "-W", "error", "-c", METRICS, folder=tmp_path)


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def required() -> list[str]:
    """What is required where no extra is asked for."""
    return setup_cfg()["options"]["install_requires"].split()


def check_redis(environment: Environment, folder: pathlib.Path, url: str) -> None:
    check_web(environment, folder, {"BROKER_URL": url})
    streams = url.replace("redis://", "redis-streams://")
    check_web(environment, folder, {"BROKER_URL": streams, "QUEUE_PREFIX": "streams."})


def check_kafka(
    environment: Environment, folder: pathlib.Path, url: str, prefix: str
) -> None:
    check_web(environment, folder, {"BROKER_URL": url, "QUEUE_PREFIX": prefix})
