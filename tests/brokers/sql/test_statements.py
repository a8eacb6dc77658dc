"""Plans of the statements: each finds its rows by an index, in queues of any length."""

from __future__ import annotations

import typing as t

import pytest
import sqlalchemy as sa

from flask_qconsume.brokers.sql import statements
from flask_qconsume.brokers.sql.schema import METADATA

#: Statements with a list of numbers as their parameter 'ids'.
BY_NUMBERS = (
    "CLAIM",
    "CLAIM_IN_ORDER",
    "READ_CLAIMED",
    "FIND_BLOCKED",
    "ACK",
    "GIVE_BACK",
)


@pytest.fixture
def sqlite() -> t.Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    METADATA.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("name", BY_NUMBERS)
def test_sqlite_finds_messages_by_their_numbers(
    sqlite: sa.Connection, name: str
) -> None:
    text = str(getattr(statements, name).compile(dialect=sqlite.dialect))
    count = text.count("?")
    rows = sqlite.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (0,) * count).all()
    assert "SEARCH qconsume_message USING INTEGER PRIMARY KEY (rowid=?)" in {
        row[3] for row in rows
    }
