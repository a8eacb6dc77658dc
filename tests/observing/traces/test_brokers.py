"""Spans on real brokers: attributes of the broker's own, and headers on every way."""

from __future__ import annotations

import typing as t

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from flask_qconsume import current_message

from ...running.conftest import AppWithWorkers
from ...waiting import wait_for
from .recorded import Spans
from .recorded import linked_ids
from .recorded import own_id
from .recorded import parent_id
from .recorded import trace_id

pytestmark = pytest.mark.broker

#: The message's own values, which differ from run to run.
_VARYING = {"messaging.message.id", "server.address", "server.port"}


def tell_attributes(span: ReadableSpan) -> dict[str, t.Any]:
    attributes = span.attributes or {}
    assert set(attributes) >= _VARYING
    return {k: v for k, v in attributes.items() if k not in _VARYING}


def run_retry_and_replay(
    worker_app: AppWithWorkers, spans: Spans, **options: t.Any
) -> None:
    """Fail twice, so that a retry and a dead letter are published; replay that."""

    @worker_app.qconsume.consumer("bill", routing_key="order.created", **options)
    def bill(body: t.Any) -> None:
        if len(spans.named(f"process {queue}")) < 2:
            raise ValueError(current_message.attempt)

    worker_app.config["QCONSUME_RETRY"] = {
        "min_delay": 1.1,
        "max_delay": 2,
        "max_attempts": 2,
    }
    worker_app.start()
    queue = worker_app.consumers.topology.queues[0].name
    worker_app.publish("order.created", 1, key="ada")
    wait_for(lambda: f"dead-letter {queue}" in spans.names, 30)
    letters = worker_app.consumers.broker.dead_letters(
        worker_app.consumers.topology.queues[0]
    )
    assert letters.take(lambda letter: True, replay=True) == 1
    wait_for(lambda: f"ack {queue}" in spans.names, 30)


def check_tree(spans: Spans, prefix: str = "") -> None:
    (publish,) = (span for span in spans.all if span.name.startswith("publish"))
    first, second, replayed = spans.named(f"process {prefix}bill")
    assert parent_id(first) == parent_id(second) == own_id(publish)
    assert linked_ids(second) == [own_id(publish), own_id(first)]
    assert parent_id(spans.one(f"dead-letter {prefix}bill")) == own_id(second)
    assert trace_id(replayed) != trace_id(publish)
    assert linked_ids(replayed) == [own_id(publish), own_id(second)]


def test_rabbitmq(worker_app: AppWithWorkers, spans: Spans, rabbitmq_url: str) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = rabbitmq_url
    run_retry_and_replay(worker_app, spans)
    check_tree(spans)
    assert tell_attributes(spans.one("publish qconsume:order.created")) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "qconsume:order.created",
        "messaging.message.body.size": 1,
        "messaging.rabbitmq.destination.routing_key": "order.created",
    }
    assert tell_attributes(spans.named("process bill")[1]) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "qconsume:order.created:bill",
        "messaging.message.body.size": 1,
        "messaging.rabbitmq.destination.routing_key": "order.created",
        "error.type": "ValueError",
        "qconsume.consumer": "bill",
        "qconsume.attempt": 2,
        "qconsume.outcome": "reject",
    }


@pytest.mark.parametrize("scheme", ["redis", "redis-streams"])
def test_redis(
    worker_app: AppWithWorkers, spans: Spans, redis_url: str, scheme: str
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = redis_url.replace("redis", scheme, 1)
    run_retry_and_replay(worker_app, spans)
    check_tree(spans)
    attributes = tell_attributes(spans.one("ack bill"))
    assert attributes == {
        "messaging.system": "redis",
        "messaging.operation.name": "ack",
        "messaging.operation.type": "settle",
        "messaging.destination.name": "bill",
        "qconsume.consumer": "bill",
    }


@pytest.mark.parametrize("ordering", ["none", "key"])
def test_kafka(
    worker_app: AppWithWorkers,
    spans: Spans,
    kafka_url: str,
    kafka_prefix: str,
    ordering: str,
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = kafka_url
    worker_app.config["QCONSUME_QUEUE_PREFIX"] = kafka_prefix
    run_retry_and_replay(worker_app, spans, ordering=ordering)
    check_tree(spans, kafka_prefix)
    first = tell_attributes(spans.named(f"process {kafka_prefix}bill")[0])
    partition = first.pop("messaging.destination.partition.id")
    assert partition.isdecimal()
    assert isinstance(first.pop("messaging.kafka.offset"), int)
    assert first == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": f"{kafka_prefix}order.created",
        "messaging.consumer.group.name": f"{kafka_prefix}bill",
        "messaging.message.body.size": 1,
        "messaging.kafka.message.key": "ada",
        "error.type": "ValueError",
        "qconsume.consumer": "bill",
        "qconsume.attempt": 1,
        "qconsume.outcome": "retry",
    }
