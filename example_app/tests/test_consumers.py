"""Consumers of stock, mail and audit: each message has its effect once."""

from __future__ import annotations

import typing as t

import pytest
from flask.testing import FlaskClient

from flask_qconsume import Ack
from flask_qconsume.testing.client import TestClient


def get_stock(client: FlaskClient) -> list[int]:
    return [product["in_stock"] for product in client.get("/stock/").get_json()]


def test_goods_are_set_aside_once(
    client: FlaskClient, qconsume_client: TestClient, message: dict[str, t.Any]
) -> None:
    before = get_stock(client)
    for _ in range(2):
        result = qconsume_client.deliver("stock.reserve", message)
        assert result.outcome == Ack()
        news = [p for p in result.published if p.routing_key == "stock.reserved"]
        assert news[0].body == {"order_id": 1, "detail": "all in stock"}
    assert get_stock(client) == [before[0] - 2, *before[1:]]


def test_a_low_product_is_ordered_and_counted_once(
    client: FlaskClient, qconsume_client: TestClient, message: dict[str, t.Any]
) -> None:
    items = [{"product_id": 2, "name": "Oolong, loose", "quantity": 12}]
    result = qconsume_client.deliver("stock.reserve", {**message, "items": items})
    assert get_stock(client)[1] == 0
    restock = [p for p in result.published if p.body.get("product_id") == 2]
    assert restock[0].routing_key == "restock"
    assert restock[0].delay == 10.0
    for _ in range(2):
        qconsume_client.deliver("stock.receive", restock[0].body)
    assert get_stock(client)[1] == 25


def test_an_incomplete_order_reserves_nothing_and_is_published(
    client: FlaskClient, qconsume_client: TestClient, message: dict[str, t.Any]
) -> None:
    before = get_stock(client)
    oolong = {"product_id": 2, "name": "Oolong, loose", "quantity": 7}
    items = [{**oolong, "product_id": 1, "name": "Gunpowder"}, oolong, oolong]
    for _ in range(2):
        result = qconsume_client.deliver("stock.reserve", {**message, "items": items})
        news = result.published[0]
        assert news.routing_key == "stock.missing"
        assert news.body == {"order_id": 1, "detail": "sold out: Oolong, loose"}
    assert get_stock(client) == before


@pytest.mark.parametrize(
    ("routing_key", "subject"),
    [("order.billed", "Thank you for order 1"), ("order.rejected", "About order 1")],
)
def test_a_customer_gets_a_mail_once(
    client: FlaskClient,
    qconsume_client: TestClient,
    message: dict[str, t.Any],
    routing_key: str,
    subject: str,
) -> None:
    for _ in range(2):
        result = qconsume_client.deliver("mail.tell", message, routing_key=routing_key)
        assert result.outcome == Ack()
        assert result.published[0].body == {"order_id": 1, "detail": subject}
    expected = [{"to": "ada@example.com", "subject": subject}]
    assert client.get("/mail/").get_json() == expected


@pytest.mark.parametrize("body", [None, 7, "text", [1, {"a": [None]}], {"a": "ü"}])
def test_the_audit_saves_any_body_once(
    client: FlaskClient, qconsume_client: TestClient, body: t.Any
) -> None:
    for _ in range(2):
        result = qconsume_client.deliver(
            "audit.record", body, id="message-1", routing_key="any.thing"
        )
        assert result.outcome == Ack()
    entries = client.get("/audit/").get_json()
    assert [(e["message_id"], e["routing_key"]) for e in entries] == [
        ("message-1", "any.thing")
    ]


def test_a_request_can_be_followed_through_the_messages(
    qconsume_client: TestClient, client: FlaskClient, message: dict[str, t.Any]
) -> None:
    headers = {"x-request-id": "abc"}
    result = qconsume_client.deliver("stock.reserve", message, headers=headers)
    assert {p.headers["x-request-id"] for p in result.published} == {"abc"}
    qconsume_client.deliver("audit.record", {}, headers=headers)
    assert client.get("/audit/").get_json()[0]["request_id"] == "abc"
