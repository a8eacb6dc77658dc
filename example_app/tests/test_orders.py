"""Placing orders over HTTP, and billing them."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_app.extensions import db
from example_app.orders.gateway import GatewayTimeout
from example_app.orders.gateway import PaymentGateway
from example_app.orders.gateway_books import Charge
from example_app.orders.placing import resend
from flask_qconsume import Ack
from flask_qconsume import Drop
from flask_qconsume import Reject
from flask_qconsume.testing.capture import Published
from flask_qconsume.testing.client import TestClient

from .conftest import ORDER


def list_events(client: FlaskClient, order_id: int = 1) -> list[str]:
    found = client.get(f"/orders/{order_id}").get_json()
    return [event["name"] for event in found["events"]]


def test_an_order_is_saved_and_published_with_our_prices(
    client: FlaskClient, qconsume_published: list[Published], message: dict[str, t.Any]
) -> None:
    answer = client.post("/orders/", json=ORDER)
    assert answer.status_code == 202
    assert answer.headers["Location"] == "/orders/1"
    assert answer.get_json()["status"] == "placed"
    assert [p.routing_key for p in qconsume_published] == ["order.placed"]
    assert qconsume_published[0].body == message
    assert qconsume_published[0].id == "order-1-placed"


def test_the_page_sends_an_order_as_a_form(
    client: FlaskClient, qconsume_published: list[Published]
) -> None:
    form = {"customer": "Ada", "email": "a@example.com", "card": "tok_visa"}
    answer = client.post("/orders/", data={**form, "quantity-1": "0", "quantity-2": 3})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    lines = qconsume_published[0].body["items"]
    assert [(line["product_id"], line["quantity"]) for line in lines] == [(2, 3)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"items": []}, "items"),
        ({"items": [{"product_id": 77, "quantity": 1}]}, "items"),
        ({"items": [{"product_id": 1, "quantity": -1}]}, "items"),
        ({"items": [{"product_id": 10**30, "quantity": 1}]}, "items"),
        ({"items": [{"product_id": 2, "quantity": 13}]}, "items"),
        ({"items": [{"product_id": 2, "quantity": 7}] * 2}, "items"),
        ({"email": "nowhere"}, "email"),
        ({"customer": "\ud800"}, "customer"),
        ({"card": "4242 4242 4242 4242"}, "card"),
        ({"total": 1}, "total"),
    ],
)
def test_an_invalid_order_is_refused_and_not_published(
    client: FlaskClient,
    qconsume_published: list[Published],
    change: dict[str, t.Any],
    field: str,
) -> None:
    answer = client.post("/orders/", json={**ORDER, **change})
    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [field]
    assert qconsume_published == []


def test_an_order_that_is_not_there_is_not_found(client: FlaskClient) -> None:
    for number in (1, 10**30):
        assert client.get(f"/orders/{number}").status_code == 404


def test_a_form_with_mistakes_comes_back_with_what_was_typed(
    client: FlaskClient,
) -> None:
    answer = client.post("/orders/", data={"customer": "Grace <Hopper>", "email": "?"})
    assert answer.status_code == 422
    assert "Not a valid email address." in answer.text
    assert 'value="Grace &lt;Hopper&gt;"' in answer.text


def test_a_bill_is_paid_and_told(
    client: FlaskClient, qconsume_client: TestClient, message: dict[str, t.Any]
) -> None:
    place(client, qconsume_client)
    result = qconsume_client.deliver("orders.bill", message)
    assert result.outcome == Ack()
    assert [p.routing_key for p in result.published] == ["order.billed"]
    assert list_events(client) == ["placed", "billed"]
    assert client.get("/orders/1").get_json()["status"] == "billed"


def test_a_second_delivery_charges_nothing_but_publishes_again(
    app: Flask,
    client: FlaskClient,
    qconsume_client: TestClient,
    message: dict[str, t.Any],
) -> None:
    place(client, qconsume_client)
    first = qconsume_client.deliver("orders.bill", message)
    # A second charge would fail now.
    app.extensions["payments"].timeouts = 1.0
    second = qconsume_client.deliver("orders.bill", message)
    assert second.outcome == Ack()
    assert [p.id for p in second.published] == [p.id for p in first.published]
    assert list_events(client) == ["placed", "billed"]


def test_a_gateway_without_an_answer_is_retried_a_few_times(
    app: Flask,
    client: FlaskClient,
    qconsume_client: TestClient,
    message: dict[str, t.Any],
) -> None:
    place(client, qconsume_client)
    app.extensions["payments"].timeouts = 1.0
    delays = []
    for attempt in (1, 2, 3):
        result = qconsume_client.deliver("orders.bill", message, attempt=attempt)
        assert isinstance(result.error, GatewayTimeout)
        delays.append(result.next_delay)
    assert all(n <= d <= 1.5 * n for d, n in zip(delays, (1, 2, 4), strict=True))
    last = qconsume_client.deliver("orders.bill", message, attempt=4)
    assert last.outcome == Reject("failed 4 of 4 attempts")
    assert [p.routing_key for p in last.published] == ["order.rejected"]
    assert list_events(client) == ["placed", *["retried"] * 3, "rejected"]


def test_an_order_with_a_declined_card_becomes_a_dead_letter_at_once(
    client: FlaskClient, qconsume_client: TestClient, message: dict[str, t.Any]
) -> None:
    place(client, qconsume_client, card="tok_expired")
    result = qconsume_client.deliver("orders.bill", message)
    assert result.outcome == Reject("the bank declined the card")
    assert result.published[0].body["reason"] == "the bank declined the card"
    assert client.get("/orders/1").get_json()["status"] == "rejected"


def test_a_message_with_an_invalid_order_becomes_a_dead_letter(
    qconsume_client: TestClient,
) -> None:
    result = qconsume_client.deliver("orders.bill", {"order_id": "seven"})
    assert isinstance(result.outcome, Reject)
    assert "'order_id': ['Not a valid integer.']" in result.outcome.reason


def test_a_message_about_a_missing_order_is_dropped(
    qconsume_client: TestClient, message: dict[str, t.Any]
) -> None:
    result = qconsume_client.deliver("orders.bill", {**message, "order_id": 99})
    assert result.outcome == Drop("order 99 does not exist")


def test_progress_in_other_parts_is_added_to_the_order_once(
    client: FlaskClient, qconsume_client: TestClient
) -> None:
    place(client, qconsume_client)
    for _ in range(2):
        news = {"order_id": 1, "detail": "all in stock"}
        qconsume_client.deliver("orders.follow", news, routing_key="stock.reserved")
    assert list_events(client) == ["placed", "stock.reserved"]


def test_an_order_that_cannot_be_delivered_is_refunded_once(
    client: FlaskClient, qconsume_client: TestClient, message: dict[str, t.Any]
) -> None:
    place(client, qconsume_client)
    qconsume_client.deliver("orders.bill", message)
    news = {"order_id": 1, "detail": "sold out: Gunpowder green tea"}
    reason = "sold out: Gunpowder green tea; refunded"
    for _ in range(2):
        result = qconsume_client.deliver(
            "orders.refund", news, routing_key="stock.missing"
        )
        assert result.outcome == Ack()
        assert result.published[0].routing_key == "order.rejected"
        assert result.published[0].body["reason"] == reason
    assert list_events(client) == ["placed", "billed", "rejected"]
    assert client.get("/orders/1").get_json()["status"] == "rejected"


@pytest.mark.parametrize("body", [b"{", b"", b"[1]", b"7", b"null", b"[" * 100_000])
def test_a_body_that_is_not_an_order_is_a_client_error(
    client: FlaskClient, qconsume_published: list[Published], body: bytes
) -> None:
    answer = client.post("/orders/", data=body, content_type="application/json")
    assert answer.status_code in {400, 422}
    assert qconsume_published == []


def test_an_order_is_placed_without_the_broker_and_published_later(
    app_without_broker: Flask,
) -> None:
    answer = app_without_broker.test_client().post("/orders/", json=ORDER)
    assert answer.status_code == 202
    client = TestClient(app_without_broker)
    (published,) = run_resend(app_without_broker)
    assert published.id == "order-1-placed"
    client.deliver("orders.bill", published.body)
    assert client.deliver("orders.bill", published.body).outcome == Ack()
    assert run_resend(app_without_broker) == []


def run_resend(app: Flask) -> list[Published]:
    """Return the orders that a starting worker publishes again."""
    with TestClient(app).capture() as published, app.app_context():
        resend()
    return published


def test_the_gateway_charges_a_key_once_however_often_it_is_asked(app: Flask) -> None:
    gateway = PaymentGateway(seconds=0.0, timeouts=0.0)
    with app.app_context():
        first, *others = (
            gateway.charge("tok_visa", 1380, key="order-1") for _ in range(3)
        )
        charges = db.session.scalars(db.select(Charge)).all()
    assert first == ("R-order-1-1380", False)
    assert others == [("R-order-1-1380", True)] * 2
    assert [(c.key, c.amount, c.requests) for c in charges] == [("order-1", 1380, 3)]


def test_the_gateway_charges_nothing_if_it_does_not_answer(app: Flask) -> None:
    gateway = PaymentGateway(seconds=0.0, timeouts=1.0)
    with app.app_context():
        with pytest.raises(GatewayTimeout):
            gateway.charge("tok_visa", 1380, key="order-1")
        assert db.session.scalars(db.select(Charge)).all() == []


def test_a_seed_gives_the_same_failures_every_time(app: Flask) -> None:
    def failures(seed: int) -> list[bool]:
        gateway = PaymentGateway.from_config(
            {
                "SHOP_GATEWAY_SECONDS": 0,
                "SHOP_GATEWAY_TIMEOUTS": 0.5,
                "SHOP_GATEWAY_SEED": seed,
            }
        )
        return [fails(gateway) for _ in range(50)]

    with app.app_context():
        assert failures(1) == failures(1) != failures(2)
        assert 10 < sum(failures(1)) < 40


def fails(gateway: PaymentGateway) -> bool:
    try:
        gateway.charge("tok_visa", 100, key="order-1")
    except GatewayTimeout:
        return True
    return False


def place(client: FlaskClient, qconsume_client: TestClient, **change: t.Any) -> None:
    """Place an order, and keep its messages from the consumers."""
    with qconsume_client.capture():
        assert client.post("/orders/", json={**ORDER, **change}).status_code == 202
