"""Prepares a SQLAlchemy engine on SQLite for greenlets that write at the same time.

A connection of Python's driver has three faults if other greenlets use the database. It
waits for a lock in C, while gevent's hub stands still. Its transactions begin without a
lock, so of two transactions that read and then write, one fails. A savepoint before
the first write begins no transaction, so its release commits.

A prepared engine reads outside of transactions, as the driver does. A transaction that
begins with a read would fail at its first write if another connection has committed
meanwhile, and no wait would help (``SQLITE_BUSY_SNAPSHOT``): with ten greenlets that
read, waited 20 ms and wrote, 180 of 200 transactions failed.
"""

from __future__ import annotations

import functools
import sqlite3
import sys
import typing as t
import weakref
from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy.engine import Dialect
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.exc import StatementError
from sqlalchemy.pool import ConnectionPoolEntry

from ..errors import ConfigurationError
from ..first_use import PerProcess
from ..logs import get_logger
from ..text import escape
from ..text import quote
from .busy_retry import is_locked
from .busy_retry import is_outdated
from .busy_retry import retry_while_busy
from .statement_kinds import begins_write
from .statement_kinds import takes_lock
from .writer_queue import WriterQueue

logger = get_logger("flask_qconsume.databases")

#: SQLite's words for how much of a commit is on the disk when the commit returns.
Synchronous = t.Literal["EXTRA", "FULL", "NORMAL", "OFF"]

_KEY = "flask_qconsume.prepared"

_TOO_LATE = (
    "Another connection has written to the database since this one began a transaction"
    " by hand, or began to read a result that is still open. Waiting cannot help: roll"
    " back and repeat the transaction. To avoid this, begin it by 'BEGIN IMMEDIATE',"
    " and fetch all rows of a result before you write."
)

_NO_WRITE_AHEAD_LOG = (
    "SQLite cannot use its write-ahead log (%s), so that readers and writers of the"
    " database wait for each other, and may fail. Is it read-only, on a network share,"
    " or in a transaction?"
)

#: Names of the journal modes in which readers and a writer do not block each other.
_GOOD_JOURNALS = ("wal", "memory")

#: Dialects of prepared engines. An engine shares its dialect only with its copies that
#: have other execution options.
_prepared: weakref.WeakSet[Dialect] = weakref.WeakSet()


def prepare_engine(
    engine: Engine, *, timeout: float | None = None, synchronous: Synchronous = "FULL"
) -> None:
    """Prepare an engine on SQLite for handlers that write at the same time.

    Call it once, where the app is made and before the engine is used. An engine of
    another database, or one that is prepared already, stays as it is.

    The engine then uses SQLite's write-ahead log. A transaction takes the write lock
    (``BEGIN IMMEDIATE``) before its first write, before a savepoint, and before a
    ``SELECT`` with ``with_for_update()``. While another connection has the lock, the
    greenlet waits, and other greenlets run. Statements that read before the lock is
    taken are outside of the transaction: each of them sees what is committed, as in
    PostgreSQL's ``READ COMMITTED``.

    :param engine: Flask-SQLAlchemy's ``db.engine``, or the result of
        ``create_engine``.
    :param timeout: Seconds to wait for the write lock; by default the driver's, which
        is 5 unless ``connect_args`` has another ``timeout``.
    :param synchronous: ``FULL``: a commit is on the disk when it returns. ``NORMAL``: a
        crash of the machine, unlike that of a process, may lose the latest commits.
    :raises ConfigurationError: if the argument is no engine, or has a driver other than
        Python's ``sqlite3``; or if SQLite knows no such ``synchronous``.
    """
    _check_arguments(engine, synchronous)
    if is_prepared(engine):
        return
    prepared = _PreparedConnections(timeout, synchronous)
    event.listen(engine, "checkout", prepared.set_up)
    event.listen(engine, "do_execute", prepared.execute)
    event.listen(engine, "do_executemany", prepared.execute_many)
    event.listen(engine, "do_execute_no_params", prepared.execute_without_parameters)
    event.listen(engine, "handle_error", prepared.explain)
    _prepared.add(engine.dialect)


def is_prepared(engine: Engine | Connection) -> bool:
    """Return whether an engine is prepared, or needs no preparation.

    Only an engine on SQLite needs it.

    :param engine: An engine or one of its connections, such as the result of
        ``db.session.get_bind()``.
    """
    return engine.dialect.name != "sqlite" or engine.dialect in _prepared


def _check_arguments(engine: object, synchronous: str) -> None:
    if not isinstance(engine, Engine):
        raise ConfigurationError(
            f"'prepare_engine' needs an engine, such as 'db.engine', and got"
            f" {quote(engine)}."
        )
    if engine.dialect.name == "sqlite" and engine.dialect.driver != "pysqlite":
        raise ConfigurationError(
            f"'prepare_engine' knows Python's driver for SQLite, and"
            f" {quote(engine.url.drivername)} is another one. Use 'sqlite:///…'."
        )
    if synchronous not in t.get_args(Synchronous):
        raise ConfigurationError(
            f"'synchronous' must be one of {', '.join(t.get_args(Synchronous))}, and is"
            f" {quote(synchronous)}."
        )


class _PreparedConnections:
    """The listeners of one prepared engine, called with each of its connections."""

    def __init__(self, timeout: float | None, synchronous: Synchronous) -> None:
        self._timeout = timeout
        self._synchronous = synchronous
        self._writers = PerProcess(WriterQueue)
        self._warned = False

    def set_up(
        self, connection: sqlite3.Connection, entry: ConnectionPoolEntry, proxy: object
    ) -> None:
        """Set up a connection at its first checkout, also one from before this call."""
        if _KEY in entry.info:
            return
        _choose_explicit_transactions(connection)
        if self._timeout is None:
            (milliseconds,) = connection.execute("PRAGMA busy_timeout").fetchone()
            self._timeout = milliseconds / 1000
        connection.execute("PRAGMA busy_timeout = 0")
        self._use_write_ahead_log(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        entry.info[_KEY] = True

    def execute(
        self,
        cursor: sqlite3.Cursor,
        statement: str,
        parameters: t.Any,
        context: ExecutionContext | None,
    ) -> bool:
        """Execute a statement that comes first in its transaction, or return false."""
        call = functools.partial(cursor.execute, statement, parameters)
        return self._begin_or_call(cursor.connection, statement, context, call)

    def execute_many(
        self,
        cursor: sqlite3.Cursor,
        statement: str,
        parameters: t.Any,
        context: ExecutionContext | None,
    ) -> bool:
        """Do the same as :meth:`execute`, for many sets of parameters."""
        call = functools.partial(cursor.executemany, statement, parameters)
        return self._begin_or_call(cursor.connection, statement, context, call)

    def execute_without_parameters(
        self, cursor: sqlite3.Cursor, statement: str, context: ExecutionContext | None
    ) -> bool:
        """Do the same as :meth:`execute`, for a statement without parameters."""
        call = functools.partial(cursor.execute, statement)
        return self._begin_or_call(cursor.connection, statement, context, call)

    def explain(self, context: ExceptionContext) -> None:
        """Add advice to an error about a lock."""
        error, cause = context.sqlalchemy_exception, context.original_exception
        if isinstance(error, StatementError) and is_locked(cause):
            too_late = is_outdated(cause) or _has_begun(context.execution_context)
            error.add_detail(_TOO_LATE if too_late else self._explain_wait())

    def _begin_or_call(
        self,
        connection: sqlite3.Connection,
        statement: str,
        context: ExecutionContext | None,
        call: Callable[[], object],
    ) -> bool:
        if connection.in_transaction:
            return False
        timeout = self._timeout or 0
        writes = begins_write(statement) or _locks_rows(context)
        is_autocommit = connection.isolation_level is None
        if writes and not is_autocommit:
            begin = functools.partial(connection.execute, "BEGIN IMMEDIATE")
            self._writers.get().call_in_turn(begin, timeout)
            return False
        # Executed here, not by SQLAlchemy: as long as nothing was read, waiting helps.
        if writes or takes_lock(statement):
            self._writers.get().call_in_turn(call, timeout)
        else:
            retry_while_busy(call, timeout)
        return True

    def _explain_wait(self) -> str:
        return (
            f"Waited {self._timeout:g} s for another connection that writes. Commit"
            " soon after the first write of a transaction, and do not wait for anything"
            " else in between."
        )

    def _use_write_ahead_log(self, connection: sqlite3.Connection) -> None:
        def set_journal() -> str:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if mode not in _GOOD_JOURNALS:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return str(mode)

        try:
            mode = retry_while_busy(set_journal, self._timeout or 0)
            problem = "" if mode in _GOOD_JOURNALS else f"its journal stays '{mode}'"
        except sqlite3.OperationalError as error:
            if is_locked(error):
                raise
            problem = escape(error)
        if problem and not self._warned:
            self._warned = True
            logger.warning(_NO_WRITE_AHEAD_LOG, problem)


def _choose_explicit_transactions(connection: sqlite3.Connection) -> None:
    """Keep the driver from beginning transactions without a lock."""
    if sys.version_info >= (3, 12):
        # With other values of 'autocommit', 'commit' has no effect, or a transaction
        # without a lock is always open.
        if connection.autocommit != sqlite3.LEGACY_TRANSACTION_CONTROL:
            connection.autocommit = True
            connection.autocommit = sqlite3.LEGACY_TRANSACTION_CONTROL


def _has_begun(context: ExecutionContext | None) -> bool:
    cursor = t.cast(sqlite3.Cursor | None, context and context.cursor)
    return cursor is not None and cursor.connection.in_transaction


def _locks_rows(context: ExecutionContext | None) -> bool:
    """Return whether a SELECT was made by ``with_for_update()``.

    SQLite has no such clause, so that SQLAlchemy leaves it out of the text.
    """
    statement = getattr(context, "invoked_statement", None)
    return getattr(statement, "_for_update_arg", None) is not None
