"""Which statements need the write lock before them."""

from __future__ import annotations

import pytest

from flask_qconsume.databases.statement_kinds import begins_write
from flask_qconsume.databases.statement_kinds import takes_lock


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO tea VALUES (1)",
        "  update tea SET price = 5",
        "delete FROM tea",
        "REPLACE INTO tea VALUES (1)",
        "CREATE TABLE tea (id)",
        "DROP TABLE tea",
        "ALTER TABLE tea ADD COLUMN price",
        "REINDEX tea",
        "SAVEPOINT sa_savepoint_1",
        "-- the price of tea\nUPDATE tea SET price = 5",
        "/* SELECT */ /* 2 */ UPDATE tea SET price = 5",
        "WITH cheap AS (SELECT 1) INSERT INTO tea SELECT * FROM cheap",
        "WITH cheap AS (SELECT 1) UPDATE tea SET price = 5",
        "with cheap AS (SELECT 1)\n delete\n from tea",
        "WITH cheap AS (SELECT 1) INSERT OR IGNORE INTO tea SELECT 1",
    ],
)
def test_a_write_is_found(statement: str) -> None:
    assert begins_write(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT price FROM tea",
        "\n\tselect 'UPDATE tea'",
        "(SELECT 1)",
        "VALUES (1)",
        "EXPLAIN QUERY PLAN DELETE FROM tea",
        "WITH cheap AS (SELECT 1) SELECT updated, replace(a, 'b', 'c') FROM cheap",
        "PRAGMA user_version = 2",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "ROLLBACK TO SAVEPOINT sa_savepoint_1",
        "RELEASE SAVEPOINT sa_savepoint_1",
        "VACUUM",
        "ATTACH 'other.db' AS other",
        "",
        "-- nothing",
    ],
)
def test_other_statements_take_no_lock(statement: str) -> None:
    assert not begins_write(statement)


def test_a_begin_with_the_lock_is_found() -> None:
    assert takes_lock("BEGIN IMMEDIATE")
    assert takes_lock("\nbegin exclusive TRANSACTION")
    assert not takes_lock("BEGIN")
    assert not takes_lock("BEGIN DEFERRED")
    assert not takes_lock("SELECT 'BEGIN IMMEDIATE'")
