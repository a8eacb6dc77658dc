"""The pages, without a worker."""

from __future__ import annotations

import typing as t

from flask import Flask
from flask.testing import FlaskClient

from flask_qconsume.testing.client import TestClient

from .conftest import ORDER


def test_the_page_shows_products_and_the_broker(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "Cast-iron teapot" in page
    assert "€ 49.00" in page
    assert "<strong>memory</strong>" in page


def test_the_panels_are_rendered_with_escaped_texts(
    client: FlaskClient, qconsume_client: TestClient, message: dict[str, t.Any]
) -> None:
    with qconsume_client.capture():
        client.post("/orders/", json={**ORDER, "customer": "<b>Bobby</b>"})
    qconsume_client.deliver("mail.tell", message, routing_key="order.billed")
    qconsume_client.deliver("audit.record", message, routing_key="order.billed")
    panels = client.get("/live").get_json()
    assert sorted(panels) == ["audit", "mails", "orders", "stock"]
    assert "&lt;b&gt;Bobby&lt;/b&gt;" in panels["orders"]
    assert "Thank you for order 1" in panels["mails"]
    assert "order.billed" in panels["audit"]


def test_the_pages_load_nothing_from_other_hosts(client: FlaskClient) -> None:
    for path in ("/", "/dead-letters/", "/static/shop.css", "/static/live.js"):
        with client.get(path) as answer:
            assert "//" not in answer.text.replace("// Keeps", "")


def test_there_are_no_dead_letters_at_first(client: FlaskClient) -> None:
    assert "No dead letters." in client.get("/dead-letters/").text
    assert client.post("/dead-letters/shop.none/1/replay").status_code == 404


def test_without_the_broker_the_pages_say_so(app_without_broker: Flask) -> None:
    client = app_without_broker.test_client()
    assert "<strong>Redis</strong>" in client.get("/").text
    answers = [client.get("/dead-letters/"), client.post("/orders/broken")]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert "cannot be reached" in answers[0].text
