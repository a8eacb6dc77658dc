"""SQLite, with its rows read and written by the calling thread."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import sqlite3
import threading
import time
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from ....errors import BrokerError
from ....errors import BrokerUnavailable
from ....errors import TopologyMismatch
from ....first_use import PerProcess
from .. import statements
from ..database import CALL_TIMEOUT_SECONDS
from ..database import Channel
from ..database import Database
from ..database import Done
from ..database import Insert
from ..database import Listen
from ..database import NewMessage
from ..database import PollingChannel
from ..database import Step

_DIALECT = sqlite.dialect(paramstyle="named")
_INSERT = (
    "INSERT INTO qconsume_message (queue, rank, due, since, expires, key, meta, body)"
)
_FIND_NAMES = sa.text(
    "SELECT name FROM sqlite_master WHERE name GLOB 'qconsume_*' UNION"
    " SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c"
    " WHERE m.name GLOB 'qconsume_*' AND m.type IN ('table', 'view')"
)
_PRAGMAS = ("journal_mode = wal", "synchronous = full", "busy_timeout = 5000")


class SqliteDatabase(Database):
    """One file of SQLite."""

    name = "SQLite"

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._connection = PerProcess(self._connect)
        self._lock = threading.RLock()

    def write(
        self, steps: Sequence[Step | Insert], timeout: float = CALL_TIMEOUT_SECONDS
    ) -> list[Done]:
        with self._use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                done = [_execute(connection, step) for step in steps]
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            return done

    def read(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> list[Sequence[t.Any]]:
        with self._use() as connection:
            text, values = _compile(statement, parameters or {})
            return connection.execute(text, values).fetchall()

    def read_one(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> Sequence[t.Any]:
        return self.read(statement, parameters)[0]

    def claim(self, link: int, queue: str, room: int) -> list[Sequence[t.Any]]:
        picked = self.read(statements.PICK, {"queue_": queue, "n": room})
        if not picked:
            return []
        mine = {"ids": [row[0] for row in picked], "me": link}
        self.write([Step(statements.CLAIM, mine)])
        return self.read(statements.READ_CLAIMED, mine)

    def find_names(self) -> set[str]:
        rows = self.read(_FIND_NAMES)
        return {name for (name,) in rows}

    def open_channel(self, listen: Listen) -> Channel:
        return PollingChannel()

    def close(self) -> None:
        connection = self._connection.take()
        if connection is not None:
            connection.close()

    def abandon_after_fork(self) -> None:
        self._connection.leave_to_parent()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False
        )
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    @contextlib.contextmanager
    def _use(self) -> t.Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection.get()
            except sqlite3.Error as error:
                raise _translate(error) from error


def _translate(error: sqlite3.Error) -> BrokerError:
    if "no such table" in str(error):
        return TopologyMismatch(f"SQLite: {error}. Run 'flask qconsume declare'.")
    return BrokerUnavailable(f"SQLite does not work now: {error}.")


def _insert(connection: sqlite3.Connection, messages: Sequence[NewMessage]) -> Done:
    values: list[t.Any] = []
    for queue, rank, delay, expires, key, meta, body in messages:
        now = time.time()
        due = None if delay is None else now + delay
        values += queue, rank, due, due or now, expires and now + expires
        values += key, meta, body
    places = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(messages))
    cursor = connection.execute(f"{_INSERT} VALUES {places}", values)
    return Done(cursor.rowcount)


def _execute(connection: sqlite3.Connection, step: Step | Insert) -> Done:
    if isinstance(step, Insert):
        return _insert(connection, step.messages)
    text, named = _compile(step.statement, step.parameters)
    cursor = connection.execute(text, named)
    row = cursor.fetchone() if cursor.description else None
    cursor.close()
    return Done(cursor.rowcount, row)


def _compile(
    statement: sa.Executable, parameters: Mapping[str, t.Any]
) -> tuple[str, dict[str, t.Any]]:
    text, defaults = _compile_once(statement)
    values = {
        name: json.dumps(value) if isinstance(value, list) else value
        for name, value in parameters.items()
    }
    return text, {**defaults, **values}


@functools.cache
def _compile_once(statement: t.Any) -> tuple[str, Mapping[str, t.Any]]:
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), dict(compiled.params or {})
