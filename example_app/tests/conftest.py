"""A shop of the test's own: an empty database, and a gateway that always answers."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from flask import Flask

from example_app import create_app
from example_app.extensions import db

ORDER = {
    "customer": "Ada Lovelace",
    "email": "ada@example.com",
    "card": "tok_visa",
    "items": [{"product_id": 1, "quantity": 2}],
}


@pytest.fixture
def config(tmp_path: pathlib.Path) -> dict[str, t.Any]:
    """What the test's shop is configured with, beside the defaults."""
    return {
        "TESTING": True,
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'shop.sqlite'}",
        "QCONSUME_BROKER_URL": "memory://",
        "SHOP_GATEWAY_SECONDS": 0.0,
        "SHOP_GATEWAY_TIMEOUTS": 0.0,
    }


@pytest.fixture
def app(config: dict[str, t.Any]) -> t.Iterator[Flask]:
    app = create_app(config)
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def message() -> dict[str, t.Any]:
    """What is published about order 1."""
    return {
        "order_id": 1,
        "customer": "Ada Lovelace",
        "email": "ada@example.com",
        "card": "tok_visa",
        "total": 1380,
        "items": [{"product_id": 1, "name": "Gunpowder green tea", "quantity": 2}],
    }
