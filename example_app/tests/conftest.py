"""Fixtures of a shop with an empty database and a gateway that always answers."""

from __future__ import annotations

import contextlib
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
    """Configuration of the test's shop, on top of the defaults."""
    return {
        "TESTING": True,
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'shop.sqlite'}",
        "QCONSUME_BROKER_URL": "memory://",
        "SHOP_GATEWAY_SECONDS": 0.0,
        "SHOP_GATEWAY_TIMEOUTS": 0.0,
    }


@pytest.fixture
def app(config: dict[str, t.Any]) -> t.Iterator[Flask]:
    with close_at_end(create_app(config)) as app:
        yield app


@pytest.fixture
def app_without_broker(config: dict[str, t.Any]) -> t.Iterator[Flask]:
    # No server listens on port 1.
    url = {"QCONSUME_BROKER_URL": "redis://127.0.0.1:1/0"}
    app = create_app({**config, **url, "QCONSUME_PUBLISH_TIMEOUT": 0.1})
    with close_at_end(app):
        yield app


@contextlib.contextmanager
def close_at_end(app: Flask) -> t.Iterator[Flask]:
    """Close the database's connections at the end."""
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def message() -> dict[str, t.Any]:
    """Body of the message about order 1."""
    return {
        "order_id": 1,
        "customer": "Ada Lovelace",
        "email": "ada@example.com",
        "card": "tok_visa",
        "total": 1380,
        "items": [{"product_id": 1, "name": "Gunpowder green tea", "quantity": 2}],
    }
