"""A dead-letter queue is full: other messages are handled, and nothing is lost."""

from __future__ import annotations

import json
import typing as t

import pytest
from confluent_kafka.admin import AlterConfigOpType
from confluent_kafka.admin import ConfigEntry
from confluent_kafka.admin import ConfigResource

from flask_qconsume.broker.dead_letters import DeadLetter
from flask_qconsume.brokers.kafka import naming
from flask_qconsume.running.backoff import Backoff
from flask_qconsume.running.worker import Worker

from ..servers.kafka import Kafka
from ..servers.rabbitmq import Vhost
from ..waiting import wait_for
from .conftest import AppWithWorkers


def limit(vhost: Vhost, pattern: str, length: int) -> None:
    """Let queues refuse messages beyond a number."""
    arguments = {"max-length": length, "overflow": "reject-publish"}
    what = ("full", pattern, json.dumps(arguments), "--apply-to", "queues")
    vhost.server.ctl("set_policy", "--vhost", vhost.name, *what)


@pytest.fixture(autouse=True)
def _try_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "flask_qconsume.running.settler.Backoff", lambda: Backoff(0.1, 0.2)
    )


@pytest.fixture
def shop(
    worker_app: AppWithWorkers, rabbitmq_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> AppWithWorkers:
    """A consumer of four at once. Bad orders become dead letters; few of these fit."""
    monkeypatch.setattr("flask_qconsume.broker.link.PARKED_RETRY_SECONDS", 1.0)
    worker_app.config["QCONSUME_BROKER_URL"] = rabbitmq_vhost.url
    add_consumer(worker_app)
    worker_app.consumers.broker.declare()
    limit(rabbitmq_vhost, r"\.dead$", 1)
    return worker_app


def add_consumer(worker_app: AppWithWorkers) -> None:
    worker_app.handled = []  # type: ignore[attr-defined]

    @worker_app.qconsume.consumer("billing", concurrency=4, retry={"max_attempts": 1})
    def bill(order: str) -> None:
        worker_app.handled.append(order)  # type: ignore[attr-defined]
        if order.startswith("bad"):
            raise ValueError


def fill_dead_letters(shop: AppWithWorkers, worker: Worker) -> list[str]:
    """Publish bad orders until the dead-letter queue refuses one; return them all.

    A quorum queue takes more than its bound: what is sent before the publisher has
    heard that the queue is full.
    """
    orders: list[str] = []

    def refuses_after_one_more() -> bool:
        orders.append(f"bad {len(orders)}")
        shop.publish("billing", orders[-1])
        return worker.subscriptions[0].settler.retries_forwards

    wait_for(refuses_after_one_more, 30)
    return orders


def test_other_messages_are_handled_and_dead_letters_arrive_in_the_end(
    shop: AppWithWorkers,
) -> None:
    worker = shop.start()
    orders = fill_dead_letters(shop, worker)
    more = [f"bad too {n}" for n in range(12)] + [f"good {n}" for n in range(12)]
    for order in more:
        shop.publish("billing", order)
    orders += more
    counts = worker.subscriptions[0].counts
    wait_for(lambda: counts["ack"] == 12, 30)
    wait_for(lambda: "dead-letter queue refuses" in worker.watchdog.verdict.to_json())
    assert worker.watchdog.verdict.live

    letters: dict[t.Any, DeadLetter] = {}
    bad = [order for order in orders if order.startswith("bad")]
    wait_for(lambda: len(take_out(shop, letters)) == len(bad), 60)
    assert sorted(letter.message.raw for letter in letters.values()) == sorted(
        json.dumps(order).encode() for order in bad
    )
    for letter in letters.values():
        assert letter.headers["x-qconsume-error"].startswith("builtins.ValueError")
        assert "x-qconsume-parked" not in letter.headers
    handled = shop.handled  # type: ignore[attr-defined]
    assert sorted(handled) == sorted(orders)  # Each of them once.
    assert worker.stop() is True


def take_out(
    shop: AppWithWorkers, letters: dict[t.Any, DeadLetter]
) -> dict[t.Any, DeadLetter]:
    """Make room in the dead-letter queue, and add the letters that it had to a list."""
    plan = shop.consumers.topology.queue("billing")
    found = shop.consumers.broker.dead_letters(plan)

    def note(letter: DeadLetter) -> bool:
        letters[letter.message.id] = letter
        return True

    found.take(note, False)
    return letters


def test_a_stop_that_could_not_settle_says_so(shop: AppWithWorkers) -> None:
    worker = shop.start()
    fill_dead_letters(shop, worker)
    assert worker.stop() is False


def test_other_messages_are_handled_on_kafka(
    worker_app: AppWithWorkers, kafka: Kafka, kafka_prefix: str
) -> None:
    """The topic of dead letters takes shorter records than the queue's own."""
    worker_app.config |= {
        "QCONSUME_BROKER_URL": kafka.url,
        "QCONSUME_QUEUE_PREFIX": kafka_prefix,
    }
    add_consumer(worker_app)
    worker_app.consumers.broker.declare()
    (plan,) = worker_app.consumers.topology.queues
    longest(kafka, naming.dead_letter_topic(plan.name), 500)
    worker = worker_app.start()
    for number in range(12):
        worker_app.publish("billing", f"bad {number}" + "x" * 1_000)
    wait_for(lambda: worker.subscriptions[0].settler.retries_forwards, 30)
    for number in range(12):
        worker_app.publish("billing", f"good {number}")
    counts = worker.subscriptions[0].counts
    wait_for(lambda: counts["ack"] == 12, 30)
    assert counts["reject"] == 12

    longest(kafka, naming.dead_letter_topic(plan.name), 100_000)
    wait_for(lambda: len(worker_app.dead(plan.name)) == 12, 60)
    assert worker.stop() is True


def longest(kafka: Kafka, topic: str, length: int) -> None:
    """Let a topic refuse longer records."""
    entry = ConfigEntry(
        "max.message.bytes",
        str(length),
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(
        ConfigResource.Type.TOPIC, topic, incremental_configs=[entry]
    )
    admin = kafka.admin()
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(30)
