"""No statement looks at all messages or dead letters, however many there are."""

from __future__ import annotations

import re
import sqlite3
import typing as t
from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from flask_qconsume.brokers.sql import backlog
from flask_qconsume.brokers.sql import dead_letters
from flask_qconsume.brokers.sql import housekeeping
from flask_qconsume.brokers.sql import statements
from flask_qconsume.brokers.sql.sqlite.compilation import compile_step

from .tools import QUEUE
from .tools import SqlQueue
from .tools import run

STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in (backlog, dead_letters, housekeeping, statements)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, sa.Executable)
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_sqlite_uses_an_index(
    name: str, sqlite_url: str, open_queue: Callable[..., SqlQueue]
) -> None:
    open_queue(sqlite_url).broker.declare()
    text, defaults = compile_step(STATEMENTS[name])
    values: dict[str, t.Any] = dict.fromkeys(re.findall(r":(\w+)", text))
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN {text}", {**values, **dict(defaults)}
        )
        steps = [row[3] for row in plan]
    connection.close()
    # An INSERT of values has no plan.
    assert steps or text.startswith("INSERT")
    scans = [each for each in steps if re.match(r"SCAN qconsume_(message|dead)", each)]
    assert scans == []


@pytest.mark.broker
def test_postgresql_counts_a_short_queue_beside_a_long_one(
    postgresql_url: str, open_queue: Callable[..., SqlQueue]
) -> None:
    """It does not walk over the messages of the long one to find the oldest."""
    queue = open_queue(postgresql_url)
    queue.broker.declare()
    run(
        queue,
        "INSERT INTO qconsume_message (queue, body)"
        " SELECT 'long', '1' FROM generate_series(1, 20000)",
    )
    run(queue, "ANALYZE qconsume_message")
    compiled = backlog.COUNT.compile(dialect=postgresql.dialect())
    with psycopg.connect(postgresql_url) as connection:
        rows = connection.execute(
            f"EXPLAIN {compiled}", {**compiled.params, "queues": [QUEUE]}
        )
        plan = "\n".join(row[0] for row in rows)
    assert "using qconsume_message_ready" in plan
    assert "qconsume_message_pkey" not in plan
    # One pass over all queues, not one for each.
    assert plan.count("Seq Scan on qconsume_message") <= 1
