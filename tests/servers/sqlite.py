"""A database file of SQLite, and other programs that lock it or read it for long."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import typing as t

from ..waiting import last


class SQLiteFile:
    """A database file, in a folder of its own."""

    title = "SQLite"

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "queue.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @contextlib.contextmanager
    def connect(self) -> t.Iterator[sqlite3.Connection]:
        """Return a connection for a block, which commits each statement."""
        options = {"isolation_level": None, "timeout": 10.0}
        with contextlib.closing(sqlite3.connect(self.path, **options)) as connection:
            yield connection

    def execute(self, statement: str, *parameters: t.Any) -> list[tuple[t.Any, ...]]:
        """Run one statement on a new connection; return the rows, if it has any."""
        with self.connect() as connection:
            return connection.execute(statement, parameters).fetchall()

    @contextlib.contextmanager
    def locked(self, seconds: float = 0.0) -> t.Iterator[None]:
        """Hold the write lock for the length of a block, as a long writer does."""
        with self._within("BEGIN IMMEDIATE"):
            last(seconds)
            yield

    @contextlib.contextmanager
    def snapshot(self, seconds: float = 0.0) -> t.Iterator[None]:
        """Read during a block, so that no checkpoint passes this moment."""
        with self._within("BEGIN", "SELECT count(*) FROM sqlite_schema"):
            last(seconds)
            yield

    @contextlib.contextmanager
    def _within(self, *statements: str) -> t.Iterator[None]:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement).fetchall()
            try:
                yield
            finally:
                connection.execute("ROLLBACK")
