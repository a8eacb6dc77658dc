"""Names and attributes of spans, by broker."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume import Message
from flask_qconsume.message import Outgoing
from flask_qconsume.observing.span_attributes import SpanDescriber
from flask_qconsume.observing.tracing import ProcessTracer
from flask_qconsume.settings import Settings

from ...apps import consumers
from ...apps import make_app
from ...harness.scripts import run_script
from .recorded import Spans
from .recorded import parent_id


def describer(broker: str, url: str = "memory://", **config: t.Any) -> SpanDescriber:
    keys = {f"QCONSUME_{key.upper()}": value for key, value in config.items()}
    settings = Settings.from_config({"QCONSUME_BROKER_URL": url, **keys})
    return SpanDescriber(broker, settings)


@pytest.mark.parametrize(
    ("broker", "exchange", "destination"),
    [
        ("RabbitMQ", "shop", "shop:order.created"),
        ("RabbitMQ", "", "order.created"),
        ("Redis Streams", "shop", "shop:order.created"),
        ("Kafka", "shop", "test.order.created"),
        ("Kafka", "", "order.created"),
    ],
)
def test_the_destination_of_a_publish(
    broker: str, exchange: str, destination: str
) -> None:
    message = Outgoing("order.created", b"{}", exchange, id="1", key="ada")
    found = describer(broker, queue_prefix="test.").describe_publish(message, "publish")
    assert found.name == f"publish {destination}"
    assert found.attributes["messaging.destination.name"] == destination
    is_kafka = broker == "Kafka"
    assert found.attributes.get("messaging.kafka.message.key") == (
        "ada" if is_kafka else None
    )


def test_a_tombstone_is_one_on_kafka() -> None:
    message = Outgoing("users", b"", "shop", key="ada", tombstone=True)
    attributes = describer("Kafka").describe_publish(message, "publish").attributes
    assert attributes["messaging.kafka.message.tombstone"] is True


def test_messages_to_several_destinations_have_no_destination_in_common() -> None:
    messages = [Outgoing(key, b"", "shop") for key in ("a", "b")]
    found = describer("RabbitMQ").describe_publishes(messages)
    assert found.name == "publish"
    assert "messaging.destination.name" not in found.attributes
    assert found.attributes["messaging.batch.message_count"] == 2


@pytest.mark.parametrize(
    ("url", "server"),
    [
        (
            "amqp://me:secret@host:5673//",
            {"server.address": "host", "server.port": 5673},
        ),
        ("redis://host/0", {"server.address": "host"}),
        ("kafka://a:9092,b:9092", {}),
        ("sentinel://a:1;sentinel://b:2", {}),
        ("memory://", {}),
    ],
)
def test_the_brokers_address(url: str, server: dict[str, t.Any]) -> None:
    message = Outgoing("a", b"")
    attributes = describer("Redis", url).describe_publish(message, "publish").attributes
    assert {k: v for k, v in attributes.items() if k.startswith("server.")} == server


def test_a_kafka_record_is_named_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "messaging/dup")
    (consumer,) = consumers(make_app_with_bill()).values()
    place = {
        "topic": "orders",
        "partition": 3,
        "offset": 7,
        "correlation_id": "c" * 300,
    }
    message = Message(b"{}", "bill", id="1", key="ada", properties=place)
    attributes = describer("Kafka").describe_process(consumer, message).attributes
    assert attributes["messaging.destination.name"] == "orders"
    assert attributes["messaging.destination.partition.id"] == "3"
    assert attributes["messaging.kafka.offset"] == 7
    assert attributes["messaging.consumer.group.name"] == "bill"
    assert len(attributes["messaging.message.conversation_id"]) == 255
    former = {
        "messaging.operation": "deliver",
        "messaging.kafka.destination.partition": "3",
        "messaging.kafka.message.offset": 7,
        "messaging.kafka.consumer.group": "bill",
    }
    assert former.items() <= attributes.items()


def test_a_failed_settlement_has_its_errors_class(spans: Spans) -> None:
    app = make_app_with_bill()
    (consumer,) = consumers(app).values()
    events = app.extensions["qconsume"].events
    tracer = ProcessTracer(events, spans.tracer, describer("RabbitMQ"))
    given = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    message = Message(b"", "bill", headers={"traceparent": given})
    end = tracer.settling(consumer, "suspect", [message])
    assert end is not None
    end([OSError("cut off")])
    span = spans.one("suspect bill")
    assert (span.attributes or {})["error.type"] == "OSError"
    # A suspect was not handled in this process: its message's creation is the parent.
    assert parent_id(span) == int("b" * 16, 16)


def make_app_with_bill() -> t.Any:
    from flask_qconsume import QConsume

    qconsume = QConsume()
    qconsume.consumer("bill", name="bill")(lambda body: None)
    return make_app(qconsume, tracing=False)


MISSING = """
import sys
sys.modules["opentelemetry"] = None
from flask import Flask
from flask_qconsume import ConfigurationError, QConsume

for tracing in ("auto", False, True):
    app = Flask("shop")
    app.config.update(QCONSUME_BROKER_URL="memory://", QCONSUME_TRACING=tracing)
    try:
        QConsume(app)
    except ConfigurationError as error:
        print(tracing, error)
"""


@pytest.mark.process
def test_a_missing_package_is_an_error_only_if_traces_are_asked_for() -> None:
    done = run_script(MISSING)
    (line,) = done.stdout.splitlines()
    assert line.startswith("True 'QCONSUME_TRACING' needs a package")
    assert line.endswith("pip install 'Flask-QConsume[otel]'")


UNFIT = """
import opentelemetry.context
del opentelemetry.context.%s
from flask import Flask
from flask_qconsume import QConsume

app = Flask("shop")
app.config["QCONSUME_BROKER_URL"] = "memory://"
QConsume(app)
print("qconsume_tracing" in app.extensions)
"""


@pytest.mark.process
def test_a_version_of_the_api_that_does_not_fit_is_told_in_the_log() -> None:
    done = run_script(UNFIT % "attach")
    assert done.stdout == "False\n"
    assert "this version of it does not fit" in done.stderr


@pytest.mark.process
def test_a_name_of_the_api_that_is_not_public_may_be_missing() -> None:
    done = run_script(UNFIT % "_SUPPRESS_INSTRUMENTATION_KEY")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_nothing_listens_where_tracing_is_off() -> None:
    app = make_app_with_bill()
    assert app.extensions["qconsume"].events.publishing == ()
