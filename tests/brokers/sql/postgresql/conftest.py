"""A database of PostgreSQL as the brokers use it, without a broker."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import pytest

from flask_qconsume.brokers.sql.postgresql.options import read_options
from flask_qconsume.brokers.sql.postgresql.postgres_database import PostgresDatabase
from flask_qconsume.settings import Settings


def open_postgres(url: str, **options: t.Any) -> PostgresDatabase:
    config = {"QCONSUME_BROKER_URL": url, "QCONSUME_TRANSPORT_OPTIONS": options}
    return PostgresDatabase(read_options(Settings.from_config(config)))


@pytest.fixture
def open_database() -> t.Iterator[Callable[..., PostgresDatabase]]:
    """Opens a database by a URL and transport options; closed with the test."""
    opened: list[PostgresDatabase] = []

    def open_by(url: str, **options: t.Any) -> PostgresDatabase:
        opened.append(open_postgres(url, **options))
        return opened[-1]

    yield open_by
    for each in opened:
        each.close()


@pytest.fixture
def database(
    postgresql_url: str, open_database: Callable[..., PostgresDatabase]
) -> PostgresDatabase:
    """A new database on the shared server."""
    return open_database(postgresql_url)
