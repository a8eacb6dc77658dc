"""The tables: made at the first start, and filled with what the shop sells.

One rule for all who write: nothing waits inside a ``with db.session.begin()`` block (no
gateway, no publish, no sleep). SQLite has one writer; a greenlet that waited while it
writes would stop every other one that wants to.
"""

from __future__ import annotations

import pathlib

from flask import Flask
from sqlalchemy import Connection
from sqlalchemy import func
from sqlalchemy import insert
from sqlalchemy import select

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
    """Make the tables where there are none yet."""
    with app.app_context():
        folder = pathlib.Path(db.engine.url.database or "").parent
        folder.mkdir(parents=True, exist_ok=True)
        with db.engine.connect() as connection:
            # A file keeps this: commits are quicker, and readers wait for no writer.
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            # Several processes may start at once: one gets the lock, the others wait
            # for it and find everything made.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            db.metadata.create_all(connection)
            _fill(connection)
            connection.commit()
        # A server may fork after this, and SQLite's connections must not be shared.
        db.engine.dispose()


def _fill(connection: Connection) -> None:
    if not connection.scalar(select(func.count()).select_from(Product)):
        connection.execute(insert(Product), PRODUCTS)


@qconsume.teardown_worker
def close_connections() -> None:
    """Close the pool when the worker has stopped."""
    db.engine.dispose()
