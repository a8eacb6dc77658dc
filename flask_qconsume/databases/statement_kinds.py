"""Tells from a statement's text whether it begins a write. Standard library only."""

from __future__ import annotations

import re

#: The first word of a statement, after comments and brackets.
_FIRST_WORD = re.compile(r"(?:\s|[(;]|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w+)", re.S)

#: The write behind ``WITH …``. If a string of a SELECT has such words, its transaction
#: takes the write lock without need, and does no harm.
_WRITE_AFTER_WITH = re.compile(
    r"\b(?:INSERT\s+(?:INTO|OR)|REPLACE\s+INTO|UPDATE|DELETE\s+FROM)\b", re.I
)

_BEGIN_WITH_LOCK = re.compile(r"\s*BEGIN\s+(?:IMMEDIATE|EXCLUSIVE)\b", re.I)

#: Statements that read, that control transactions, or that need to run outside of one.
_NO_WRITES = frozenset(
    (
        *("SELECT", "VALUES", "EXPLAIN", "PRAGMA"),
        *("BEGIN", "COMMIT", "END", "ROLLBACK", "RELEASE"),
        *("ATTACH", "DETACH", "VACUUM"),
    )
)


def begins_write(statement: str) -> bool:
    """Return whether a transaction must have the write lock before a statement.

    A savepoint counts as a write: outside of a transaction, its release would commit.

    >>> begins_write("UPDATE tea SET price = 5"), begins_write("SELECT price FROM tea")
    (True, False)
    >>> begins_write("WITH t AS (SELECT 1) INSERT INTO tea SELECT * FROM t")
    True
    """
    found = _FIRST_WORD.match(statement)
    word = found[1].upper() if found else "SELECT"
    if word == "WITH":
        return _WRITE_AFTER_WITH.search(statement) is not None
    return word not in _NO_WRITES


def takes_lock(statement: str) -> bool:
    """Return whether a statement begins a transaction that has the write lock.

    >>> takes_lock("BEGIN IMMEDIATE"), takes_lock("BEGIN")
    (True, False)
    """
    return _BEGIN_WITH_LOCK.match(statement) is not None
