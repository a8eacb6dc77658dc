"""The site shows its metrics to clients that send the token."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from example_app import create_app

from .conftest import ORDER
from .conftest import close_at_end


@pytest.fixture
def app(config: dict[str, t.Any]) -> t.Iterator[Flask]:
    measured = {"QCONSUME_METRICS": True, "SHOP_METRICS_TOKEN": "let-me-in"}
    with close_at_end(create_app({**config, **measured})) as app:
        yield app


def test_prometheus_gets_the_metrics_by_a_token(app: Flask) -> None:
    client = app.test_client()
    assert client.post("/orders/", json=ORDER).status_code == 202
    answer = client.get("/metrics", headers={"Authorization": "Bearer let-me-in"})
    assert 'qconsume_published_total{outcome="confirmed"} 1.0' in answer.text


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer let-me-out", "let-me-in"])
def test_nothing_is_shown_without_it(app: Flask, sent: str) -> None:
    answer = app.test_client().get("/metrics", headers={"Authorization": sent})
    assert answer.status_code == 404


def test_nothing_is_shown_if_there_is_no_token(app: Flask) -> None:
    app.config["SHOP_METRICS_TOKEN"] = ""
    headers = {"Authorization": "Bearer "}
    assert app.test_client().get("/metrics", headers=headers).status_code == 404
