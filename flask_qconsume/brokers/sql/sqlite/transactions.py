"""Transactions of several callers, which the writing thread commits together.

This code runs in a native thread; see ``connection_thread.py``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

from ..database import StepResult
from .connection_thread import ConnectionJob
from .connection_thread import ConnectionThread
from .connection_thread import retry_until
from .errors import is_disk_error


class CompiledStep(t.NamedTuple):
    """One statement as text, with its parameters."""

    text: str
    parameters: Mapping[str, t.Any] | Sequence[t.Any]


class CommitFailed(Exception):
    """The disk failed in a commit, so that the transaction may be stored or not."""


class Transaction(ConnectionJob):
    """The statements of one caller, and their results once it is finished."""

    def __init__(self, steps: Sequence[CompiledStep], deadline: float) -> None:
        super().__init__(deadline)
        self.steps = steps
        self.done: list[StepResult] = []


class WriteThread(ConnectionThread):
    """Commits the transactions of all callers that wait in one transaction."""

    name = "sqlite-write"

    def _serve(
        self, connection: sqlite3.Connection, jobs: Sequence[ConnectionJob]
    ) -> None:
        transactions = t.cast("list[Transaction]", list(jobs))
        if len(transactions) == 1 or not self._commit_together(
            connection, transactions
        ):
            for transaction in transactions:
                self._commit_alone(connection, transaction)

    def _commit_together(
        self, connection: sqlite3.Connection, transactions: list[Transaction]
    ) -> bool:
        """Return false, and change nothing, if one of the transactions fails."""
        try:
            _begin(connection, min(each.deadline for each in transactions))
            for transaction in transactions:
                transaction.done = _execute_all(connection, transaction.steps)
            _commit(connection)
        except CommitFailed:
            self.reopen()
            _roll_back(connection)
            raise
        except Exception:
            _roll_back(connection)
            return False
        for transaction in transactions:
            transaction.finish()
        return True

    def _commit_alone(
        self, connection: sqlite3.Connection, transaction: Transaction
    ) -> None:
        execute = _execute_one if len(transaction.steps) == 1 else _execute_several
        try:
            execute(connection, transaction)
        except Exception as error:
            _roll_back(connection)
            if isinstance(error, CommitFailed) or is_disk_error(error):
                self.reopen()
            transaction.finish(error)
        else:
            transaction.finish()


def _execute_one(connection: sqlite3.Connection, transaction: Transaction) -> None:
    """Execute one statement without BEGIN and COMMIT, which saves two statements."""

    def execute() -> list[StepResult]:
        with _noticing_failed_commit():
            return _execute_all(connection, transaction.steps)

    transaction.done = retry_until(execute, transaction.deadline)


def _execute_several(connection: sqlite3.Connection, transaction: Transaction) -> None:
    if not transaction.steps:
        return  # The caller only wants to open the file.
    _begin(connection, transaction.deadline)
    transaction.done = _execute_all(connection, transaction.steps)
    _commit(connection)


def _begin(connection: sqlite3.Connection, deadline: float) -> None:
    retry_until(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)


def _execute_all(
    connection: sqlite3.Connection, steps: Sequence[CompiledStep]
) -> list[StepResult]:
    return [_execute(connection, *step) for step in steps]


def _execute(
    connection: sqlite3.Connection,
    text: str,
    parameters: Mapping[str, t.Any] | Sequence[t.Any],
) -> StepResult:
    cursor = connection.execute(text, parameters)
    row = cursor.fetchone() if cursor.description else None
    cursor.close()
    return StepResult(cursor.rowcount, row)


def _commit(connection: sqlite3.Connection) -> None:
    with _noticing_failed_commit():
        connection.execute("COMMIT")


@contextlib.contextmanager
def _noticing_failed_commit() -> t.Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if is_disk_error(error):
            raise CommitFailed(str(error)) from error
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    # A full disk has ended the transaction already.
    if connection.in_transaction:
        connection.execute("ROLLBACK")
