"""Plans of statements: stale ones, and ones that would walk over deleted rows."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy as sa

from flask_qconsume.brokers.sql import housekeeping
from flask_qconsume.brokers.sql import statements
from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.postgresql import queries
from flask_qconsume.brokers.sql.postgresql.claim_start import ClaimStart
from flask_qconsume.brokers.sql.postgresql.compiled import compile_statement
from flask_qconsume.brokers.sql.postgresql.postgres_database import PostgresDatabase
from tests.servers.postgresql import Database

from ..tools import SqlQueue

_CLAIM = {"queue_": "billing", "n": 100, "me": 1}
_FILL = (
    "INSERT INTO qconsume_message (queue, owner, due, body)"
    " SELECT 'billing', {owner}, {due}, '1' FROM generate_series(1, {count})"
)


class Planner:
    """Runs and explains statements on the only connection of a broker's database."""

    def __init__(self, queue: SqlQueue, database: Database) -> None:
        queue.broker.declare()
        self.database: PostgresDatabase = t.cast(
            PostgresDatabase, queue.broker._shared.database
        )
        self._server = database

    def fill(self, count: int, owner: str = "NULL", due: str = "NULL") -> None:
        self._server.execute(_FILL.format(count=count, owner=owner, due=due))

    def explain(
        self, statement: sa.Executable, values: dict[str, t.Any], options: str = ""
    ) -> str:
        """Return the plan that PostgreSQL makes now."""
        text, parameters = compile_statement(statement, values)
        with self.database._pool.get().lend(30) as connection:
            rows = connection.execute(f"EXPLAIN ({options}) {text}", parameters)
            return "\n".join(row[0] for row in rows)

    def explain_prepared(self, beginning: str, *values: str) -> str:
        """Return the plan that PostgreSQL keeps of a statement."""
        with self.database._pool.get().lend(30) as connection:
            rows = connection.execute(
                "SELECT name, generic_plans FROM pg_prepared_statements"
                " WHERE statement LIKE %s AND generic_plans > 0",
                [f"{beginning}%"],
            )
            ((name, _),) = rows.fetchall()
            found = connection.execute(f"EXPLAIN EXECUTE {name} ({', '.join(values)})")
            return "\n".join(row[0] for row in found)

    def count_pages(self, statement: sa.Executable, values: dict[str, t.Any]) -> int:
        """Return how many pages of tables and indexes a statement looks at."""
        plan = self.explain(statement, values, "ANALYZE, BUFFERS, TIMING off")
        return sum(map(int, re.findall(r"shared hit=(\d+)", plan)[:1]))


@pytest.fixture
def planner(
    postgresql_database: Database, open_queue: Callable[..., SqlQueue]
) -> Planner:
    options = {"pool_size": 1}
    queue = open_queue(postgresql_database.url, transport_options=options)
    return Planner(queue, postgresql_database)


def test_the_plan_for_an_empty_table_uses_the_index_once_it_is_full(
    planner: Planner,
) -> None:
    for _ in range(20):
        planner.database.claim(1, "billing", 100)
    planner.fill(20_000)
    plan = planner.explain_prepared("UPDATE qconsume_message", "1", "'billing'", "100")
    assert "using qconsume_message_ready" in plan
    assert "Sort" not in plan
    assert "Seq Scan" not in plan


def test_no_look_reads_the_whole_table(planner: Planner) -> None:
    planner.fill(20_000)
    for statement, values in [
        (statements.FIND_READY, {"queues": ["billing", "mail"]}),
        (statements.MAKE_READY, {"queues": ["billing", "mail"]}),
        (housekeeping.RECLAIM, {"owners": [1, 2]}),
        (housekeeping.DELETE_EXPIRED, {}),
    ]:
        plan = planner.explain(statement, values, "COSTS off")
        assert "Seq Scan on qconsume_message" not in plan


def test_an_acknowledgement_does_not_walk_over_all_rows_of_its_owner(
    planner: Planner,
) -> None:
    planner.fill(20_000, owner="7")
    plan = planner.explain(statements.ACK, {"ids": [1, 2, 3], "me": 7}, "COSTS off")
    assert "qconsume_message_pkey" in plan
    assert "qconsume_message_owner" not in plan


def test_messages_that_are_due_are_found_among_those_that_are_not(
    planner: Planner,
) -> None:
    """A comparison with a volatile function would look at each delayed message."""
    planner.fill(20_000, due="1e11")
    planner.fill(10, due="1")
    values = {"queues": ["billing"]}
    assert planner.count_pages(statements.MAKE_READY, values) < 200


def test_claims_skip_deleted_rows_that_an_old_snapshot_keeps(
    planner: Planner, postgresql_database: Database
) -> None:
    with psycopg.connect(postgresql_database.url) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM qconsume_message")
        planner.fill(20_000)
        planner.database.write([Step(sa.text("DELETE FROM qconsume_message"))])
        planner.fill(1)
        start = {"rank_": 0, "id_": 20_001}
        full = planner.count_pages(queries.CLAIM, _CLAIM)
        planner.database.write(
            [Step(sa.text("UPDATE qconsume_message SET owner=NULL"))]
        )
        short = planner.count_pages(queries.CLAIM_FROM, {**_CLAIM, **start})
    assert short < full / 5


def test_the_beginning_is_skipped_only_after_slow_claims() -> None:
    start = ClaimStart()
    for _ in range(5):
        start.note_claimed([(7, 0, False), (9, 0, False)])
        assert start.get() is None
        start.note_full_search(0.02)
    assert start.get() == (0, 7)
    start.note_full_search(0.001)
    assert start.get() is None


def test_claims_return_to_the_beginning_if_there_is_nothing_behind_it(
    planner: Planner,
) -> None:
    planner.fill(2)
    start = planner.database._claim_starts["billing"] = ClaimStart()
    start.note_claimed([(1_000, 0, False)])
    for _ in range(5):
        start.note_full_search(0.02)
    assert start.get() is not None
    assert len(planner.database.claim(1, "billing", 10)) == 2
