"""Database tables, created and filled at the first start.

Code inside a ``with db.session.begin()`` block never waits: it does not call the
gateway, publish or sleep. SQLite has one writer, so a greenlet that waited in its
transaction would block all other writers.

The default is SQLite, which needs no server. Processes on several machines share a
PostgreSQL: ``FLASK_SQLALCHEMY_DATABASE_URI=postgresql+psycopg://…``.
"""

from __future__ import annotations

import pathlib

from flask import Flask
from sqlalchemy import Connection
from sqlalchemy import func
from sqlalchemy import insert
from sqlalchemy import select

from flask_qconsume.integrations.sqlalchemy import prepare_engine

from .extensions import db
from .extensions import qconsume
from .stock.models import Product

PRODUCTS = [
    {"name": "Gunpowder green tea", "price": 690, "in_stock": 40},
    {"name": "Oolong, loose", "price": 890, "in_stock": 12},
    {"name": "Earl Grey", "price": 540, "in_stock": 60},
    {"name": "Cast-iron teapot", "price": 4900, "in_stock": 6},
]


def init_app(app: Flask) -> None:
    """Create missing tables."""
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            folder = pathlib.Path(db.engine.url.database or "").parent
            folder.mkdir(parents=True, exist_ok=True)
        # Consumers write at the same time, which SQLite has to be prepared for.
        prepare_engine(db.engine)
        with db.engine.connect() as connection:
            _lock(connection)
            db.metadata.create_all(connection)
            _insert_products(connection)
            connection.commit()
        # A server may fork later, and processes must not share connections.
        db.engine.dispose()


def _lock(connection: Connection) -> None:
    """Begin a transaction of which there is only one at a time.

    Several processes may start at once. One gets the lock; the rest wait for it and
    find all tables.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7003)")


def _insert_products(connection: Connection) -> None:
    if not connection.scalar(select(func.count()).select_from(Product)):
        connection.execute(insert(Product), PRODUCTS)


@qconsume.teardown_worker
def close_connections() -> None:
    """Close the database connections when the worker has stopped."""
    db.engine.dispose()
