"""The test client: one message through the real dispatch, without broker or waiting."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask
from flask import g
from marshmallow import Schema
from marshmallow import fields

from flask_qconsume import Ack
from flask_qconsume import ConsumerBlueprint
from flask_qconsume import Drop
from flask_qconsume import InvalidMessage
from flask_qconsume import MessageTooLarge
from flask_qconsume import PublishError
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import UndecodableMessage
from flask_qconsume import UnknownConsumer
from flask_qconsume import current_message
from flask_qconsume.testing.client import TestClient
from tests.apps import make_app


class CardDeclined(Exception):
    pass


class Order(Schema):
    id = fields.Int(required=True)


class Shop:
    def __init__(self) -> None:
        self.qconsume = QConsume()
        self.orders = ConsumerBlueprint("orders", __name__)
        self.billed: list[t.Any] = []
        self.orders.add_consumer("billing", self.bill, schema=Order)
        self.orders.before_message(self.load_tenant)

    def load_tenant(self) -> None:
        g.tenant = current_message.headers.get("x-tenant")

    def bill(self, order: dict[str, t.Any]) -> None:
        if order["id"] == 13:
            raise CardDeclined("no funds")
        self.billed.append((order["id"], g.tenant, current_message.attempt))
        self.qconsume.publish("bill.sent", order, headers={"x-a": "b"}, delay=5)

    def client(self, **config: t.Any) -> TestClient:
        app = make_app(self.qconsume, self.orders, **config)
        return self.qconsume.test_client(app)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_message_goes_through_hooks_schema_and_handler(shop: Shop) -> None:
    result = shop.client().deliver(
        "orders.bill", {"id": "5"}, headers={"x-tenant": "acme"}, attempt=2
    )
    assert (result.outcome, result.error, result.next_delay) == (Ack(), None, None)
    assert shop.billed == [(5, "acme", 2)]


def test_what_it_publishes_is_kept_and_sent_nowhere(shop: Shop) -> None:
    client = shop.client()
    (published,) = client.deliver("orders.bill", {"id": 5}).published
    assert (published.routing_key, published.body) == ("bill.sent", {"id": 5})
    assert (published.headers, published.delay) == ({"x-a": "b"}, 5)
    assert published.exchange == "qconsume"
    assert published.id


def test_a_retry_waits_for_its_minimum_and_some_jitter(shop: Shop) -> None:
    client = shop.client(retry={"min_delay": 10, "jitter": 0.2})
    delays = {client.deliver("orders.bill", {"id": 13}).next_delay for _ in range(20)}
    assert len(delays) > 10
    assert all(delay and 10 <= delay <= 12 for delay in delays)


def test_time_is_virtual(shop: Shop) -> None:
    client = shop.client(retry={"jitter": 0, "max_attempts": 3})
    delays = [
        client.deliver("orders.bill", {"id": 13}, attempt=n).next_delay
        for n in (1, 2, 3)
    ]
    assert delays == [1, 4, None]
    last = client.deliver("orders.bill", {"id": 13}, attempt=3)
    assert last.outcome == Reject("failed 3 of 3 attempts")
    assert isinstance(last.error, CardDeclined)


def test_a_body_may_be_wrong_on_purpose(shop: Shop) -> None:
    client = shop.client(max_message_size=10)
    assert isinstance(client.deliver("orders.bill", b"{").error, UndecodableMessage)
    assert isinstance(client.deliver("orders.bill", {}).error, InvalidMessage)
    assert isinstance(client.deliver("orders.bill", b" " * 11).error, MessageTooLarge)
    packed = client.deliver(
        "orders.bill", {"id": 1}, content_type="application/msgpack"
    )
    assert packed.outcome == Ack()
    pickled = client.deliver("orders.bill", b"", content_type="application/x-pickle")
    assert isinstance(pickled.outcome, Reject)


def test_further_fields_of_the_message_may_be_given() -> None:
    seen: list[t.Any] = []
    qconsume = QConsume()

    @qconsume.consumer("q")
    def look(body: t.Any) -> None:
        seen.append((current_message.id, current_message.key, current_message.queue))
        seen.append(current_message.routing_key)

    client = qconsume.test_client(make_app(qconsume))
    client.deliver("look", 1, id="mine", key="k", routing_key="a.b")
    client.deliver("look", 1, id=None)
    assert seen[:2] == [("mine", "k", "q"), "a.b"]
    assert seen[2] == (None, None, "q")


def test_an_unknown_consumer_is_named(shop: Shop) -> None:
    with pytest.raises(UnknownConsumer, match="did you mean 'orders.bill'"):
        shop.client().deliver("orders.bil")


def raising(error: BaseException) -> t.Callable[[t.Any], t.Any]:
    def handler(body: t.Any) -> t.Any:
        raise error

    return handler


def test_an_unforeseen_error_is_raised_where_that_is_wanted(shop: Shop) -> None:
    with pytest.raises(CardDeclined):
        shop.client().deliver("orders.bill", {"id": 13}, catch=False)


@pytest.mark.parametrize("way", ["error handler", "raised from", "none"])
def test_an_error_that_was_foreseen_is_not_raised(way: str) -> None:
    qconsume = QConsume()
    error = CardDeclined()

    @qconsume.consumer("q")
    def handle(body: t.Any) -> None:
        if way == "raised from":
            raise Drop("foreseen") from error
        if way == "error handler":
            raise error

    qconsume.message_errorhandler(CardDeclined)(lambda error: Drop("foreseen"))
    client = qconsume.test_client(make_app(qconsume))
    result = client.deliver("handle", catch=False)
    assert result.outcome == (Ack() if way == "none" else Drop("foreseen"))
    assert result.error is (None if way == "none" else error)


def test_an_error_handler_that_declines_makes_no_error_foreseen() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("q", raising(CardDeclined()), name="fail")
    qconsume.message_errorhandler(CardDeclined)(lambda error: None)
    with pytest.raises(CardDeclined):
        qconsume.test_client(make_app(qconsume)).deliver("fail", catch=False)


def test_a_teardown_that_raises_is_raised_where_that_is_wanted() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("q", lambda body: None, name="fine")
    qconsume.teardown_message(raising(CardDeclined()))
    with pytest.raises(CardDeclined):
        qconsume.test_client(make_app(qconsume)).deliver("fine", catch=False)


def test_what_views_publish_may_be_captured_too(shop: Shop) -> None:
    client = shop.client()
    app = t.cast(Flask, client._app)

    @app.post("/orders")
    def create() -> str:
        return shop.qconsume.publish("order.created", {"id": 1})

    with client.capture() as published:
        response = app.test_client().post("/orders")
    assert [message.id for message in published] == [response.text]
    assert [message.routing_key for message in published] == ["order.created"]


def test_captured_messages_are_checked_as_sent_ones_are(shop: Shop) -> None:
    client = shop.client()
    publish = client._consumers.publish
    with client.capture() as published:
        with pytest.raises(PublishError, match="cannot be written"):
            publish("a", object())
        publish("a", b"\xff", content_type="image/png")
        publish("a", "text", content_type="text/plain", key="k", priority=3, expires=9)
    png, text = published
    assert png.body == b"\xff"
    assert (text.body, text.key, text.priority, text.expires) == ("text", "k", 3, 9)


def test_nothing_is_captured_after_the_block(shop: Shop) -> None:
    client = shop.client()
    with client.capture() as published:
        pass
    with pytest.raises(PublishError):
        client._consumers.publish("bill.sent", 1)
    client._consumers.publish("billing", 1)
    assert published == []
    assert client._consumers.broker.depth("billing") == 1


def test_a_retry_that_was_asked_for_tells_its_delay() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("q", lambda body: Retry(90), name="later")
    client = qconsume.test_client(make_app(qconsume))
    assert client.deliver("later").next_delay == 90
    assert client.deliver("later", attempt=6).next_delay is None
