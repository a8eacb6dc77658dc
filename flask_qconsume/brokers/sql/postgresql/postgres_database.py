"""PostgreSQL, through psycopg, which gevent makes cooperative."""

from __future__ import annotations

import contextlib
import time
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

import psycopg
import sqlalchemy as sa

from ....errors import BrokerUnavailable
from ....first_use import PerProcess
from ..database import CALL_TIMEOUT_SECONDS
from ..database import Channel
from ..database import Database
from ..database import Insert
from ..database import PollingChannel
from ..database import Step
from ..database import StepResult
from ..database import WakeReaders
from . import queries
from .claim_start import ClaimStart
from .compiled import compile_statement
from .connection import PostgresConnection
from .connection import TimeLimitReached
from .connection_pool import PostgresPool
from .errors import ServerIsReadOnly
from .errors import TransactionConflict
from .errors import translate_error
from .notifications import NotifyChannel
from .options import PostgresOptions
from .process_identity import has_ended
from .process_identity import identify_process
from .session import connect

#: Attempts of a transaction that conflicts with another transaction.
_MAX_TRANSACTION_ATTEMPTS = 5
#: Seconds for a claim, which takes milliseconds. A reader is the first caller that
#: notices a hanging connection.
_CLAIM_TIMEOUT_SECONDS = 10.0
#: Seconds for announcing new messages.
_NOTIFY_TIMEOUT_SECONDS = 5.0


class PostgresDatabase(Database):
    """One database of a PostgreSQL server."""

    name = "PostgreSQL"

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._pool = PerProcess(self._create_pool)
        self._claim_starts: dict[str, ClaimStart] = {}

    def write(
        self, steps: Sequence[Step | Insert], timeout: float = CALL_TIMEOUT_SECONDS
    ) -> list[StepResult]:
        deadline = time.monotonic() + timeout
        for _ in range(_MAX_TRANSACTION_ATTEMPTS - 1):
            with contextlib.suppress(TransactionConflict):
                return self._write_once(steps, deadline)
        return self._write_once(steps, deadline)

    def read(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> list[Sequence[t.Any]]:
        with self._lend(timeout) as connection:
            return list(_execute(connection, statement, parameters or {}).fetchall())

    def read_one(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> Sequence[t.Any]:
        return self.read(statement, parameters, timeout)[0]

    def claim(self, link: int, queue: str, room: int) -> list[Sequence[t.Any]]:
        start = self._claim_starts.setdefault(queue, ClaimStart())
        values = {"queue_": queue, "n": room, "me": link}
        rows: list[Sequence[t.Any]] = []
        if (key := start.get()) is not None:
            place = dict(zip(("rank_", "id_"), key, strict=True))
            rows = self._claim(queries.CLAIM_FROM, {**values, **place})
        if not rows and (rows := self._claim(queries.CLAIM, values)):
            start.note_full_search(rows[0][-1])
        rows.sort(key=lambda row: (row[1], row[0]))
        if rows:
            start.note_claimed(rows)
        return [row[:-1] for row in rows]

    def find_names(self) -> set[str]:
        return {name for (name,) in self.read(queries.FIND_NAMES)}

    def lock_declarations(self) -> Sequence[Step]:
        return [Step(queries.LOCK_DECLARATIONS)]

    def caveats(self) -> list[str]:
        off = {row[0] for row in self.read(queries.FIND_UNSAFE_SETTINGS)}
        return [text for name, text in queries.CAVEATS.items() if name in off]

    def open_channel(self, wake_readers: WakeReaders) -> Channel:
        if self._options.transaction_pooling:
            return PollingChannel()
        return NotifyChannel(self._notify, self._connect, wake_readers)

    @property
    def process(self) -> str:
        return identify_process()

    def is_dead(self, process: str) -> bool:
        return has_ended(process)

    def close(self) -> None:
        pool = self._pool.take()
        if pool is not None:
            pool.close()

    def abandon_after_fork(self) -> None:
        self._pool.leave_to_parent()

    def _claim(
        self, statement: sa.Executable, values: Mapping[str, t.Any]
    ) -> list[Sequence[t.Any]]:
        with self._lend(_CLAIM_TIMEOUT_SECONDS) as connection:
            return list(_execute(connection, statement, values).fetchall())

    def _notify(self, payload: str) -> None:
        self.read(queries.NOTIFY, {"payload": payload}, _NOTIFY_TIMEOUT_SECONDS)

    def _create_pool(self) -> PostgresPool:
        return PostgresPool(self._connect, self._options.pool_size)

    def _connect(self) -> PostgresConnection:
        return connect(self._options)

    def _write_once(
        self, steps: Sequence[Step | Insert], deadline: float
    ) -> list[StepResult]:
        with self._lend(deadline - time.monotonic()) as connection:
            if len(steps) == 1:  # The server commits it with its answer.
                with _translating(committing=True):
                    return [_execute_step(connection, steps[0])]
            connection.execute("BEGIN")
            done = [_execute_step(connection, step) for step in steps]
            with _translating(committing=True):
                connection.execute("COMMIT")
            return done

    @contextlib.contextmanager
    def _lend(self, timeout: float) -> t.Iterator[PostgresConnection]:
        pool = self._pool.get()
        try:
            with _translating(), pool.lend(timeout) as connection:
                yield connection
        except BrokerUnavailable as error:
            # After a fail-over, the next connection may lead to the new primary. If one
            # connection hangs, the idle connections are likely to hang, too.
            if isinstance(error, ServerIsReadOnly) or _hangs(error):
                pool.close_idle()
            raise


def _hangs(error: BrokerUnavailable) -> bool:
    return isinstance(error.__cause__, TimeLimitReached)


@contextlib.contextmanager
def _translating(*, committing: bool = False) -> t.Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise translate_error(error, committing=committing) from error


def _execute_step(connection: PostgresConnection, step: Step | Insert) -> StepResult:
    if isinstance(step, Insert):
        # An array for each column: the statement is the same for any number of rows.
        columns = map(list, zip(*step.messages, strict=True))
        names = ("queue", "rank", "delay", "expires", "key", "meta", "body")
        values = dict(zip(names, columns, strict=True))
        connection.execute(queries.INSERT, values, binary=True)
        return StepResult(len(step.messages))
    cursor = _execute(connection, step.statement, step.parameters)
    row = cursor.fetchone() if cursor.description else None
    return StepResult(cursor.rowcount, row)


def _execute(
    connection: PostgresConnection,
    statement: sa.Executable,
    parameters: Mapping[str, t.Any],
) -> psycopg.Cursor[t.Any]:
    text, values = compile_statement(statement, parameters)
    return connection.execute(text, values, binary=True)
