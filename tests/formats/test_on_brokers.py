"""Protobuf bodies on every broker: handled, retried, and as dead letters."""

from __future__ import annotations

import typing as t

from flask import Flask

from flask_qconsume import Format
from flask_qconsume import Message
from flask_qconsume import Protobuf
from flask_qconsume import QConsume
from flask_qconsume import current_message
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.extension import AppConsumers
from flask_qconsume.running.worker import Worker
from tests.protobufs import Invoice
from tests.protobufs import Order
from tests.waiting import wait_for

ORDER = Order(id=7, total="zwölf\0\x80")


class Raw(Format):
    """The body reversed, to test that any byte is carried."""

    content_types = ("application/x-backwards",)

    def decode(self, message: Message) -> bytes:
        return message.raw[::-1]

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        return bytes(body[::-1])


def app_on(url: str, handled: list[t.Any]) -> Flask:
    """Consumers 'bill', which fails once, and 'audit', which has no schema."""
    qconsume = QConsume()
    qconsume.register_format(Protobuf(Order, Invoice))
    qconsume.register_format(Raw())

    @qconsume.consumer("billing", schema=Order)
    def bill(order: t.Any) -> None:
        handled.append((order, current_message.attempt))
        if current_message.attempt == 1:
            raise ConnectionError("not yet")

    @qconsume.consumer("audit")
    def audit(body: t.Any) -> None:
        handled.append((body, current_message.attempt))

    app = Flask("formats")
    app.testing = True
    app.config["QCONSUME_BROKER_URL"] = url
    app.config["QCONSUME_RETRY"] = {"min_delay": 0.01, "max_delay": 0.02}
    qconsume.init_app(app)
    return app


def passes(url: str) -> None:
    handled: list[t.Any] = []
    app = app_on(url, handled)
    consumers: AppConsumers = app.extensions["qconsume"]
    publish, every_byte = consumers.publish, list(range(256))
    publish("billing", ORDER)
    publish("billing", ORDER.SerializeToString(), content_type="application/protobuf")
    publish("billing", b"\x08", content_type="application/protobuf")
    publish("billing", Invoice(number="5"))
    publish("audit", Invoice(number="5"))
    publish("audit", every_byte, content_type="application/x-backwards")
    dead = consumers.broker.dead_letters(consumers.topology.queue("billing"))
    worker = Worker(app)
    worker.start()
    try:
        wait_for(lambda: len(handled) == 6 and dead.count() == 2)
        letters = {letter.message.raw: letter for letter in dead}
    finally:
        assert worker.stop()
        consumers.close()
    for found in [*[(ORDER, n) for n in (1, 1, 2, 2)], (Invoice(number="5"), 1)]:
        handled.remove(found)
    assert handled == [(bytes(every_byte), 1)]
    assert_told(letters[b"\x08"], "the body is no 'shop.Order': ")
    of_another = letters[Invoice(number="5").SerializeToString()]
    assert_told(of_another, "a protobuf 'shop.Invoice', and the consumer takes 'shop.O")


def assert_told(letter: t.Any, reason: str) -> None:
    assert reason in letter.headers[own_headers.REASON]
    assert letter.message.content_type == "application/protobuf"


def test_on_memory() -> None:
    passes("memory://")


def test_on_redis(redis_url: str) -> None:
    passes(redis_url)


def test_on_redis_streams(redis_url: str) -> None:
    passes(redis_url.replace("redis:", "redis-streams:", 1))


def test_on_rabbitmq(rabbitmq_url: str) -> None:
    passes(rabbitmq_url)
