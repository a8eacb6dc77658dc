"""A database file of SQLite, which takes the place of a server.

What happens to a server has a counterpart: another program that holds the write lock is
a server that hangs, and a folder that is away, such as that of a disk, a killed one.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import typing as t

from ..waiting import last
from .disk import SmallDisk


class SQLiteFile:
    """A database file, in a folder of its own.

    :param disk: The disk that has the folder, if the file may fill it.
    """

    title = "SQLite"

    def __init__(self, folder: pathlib.Path, disk: SmallDisk | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "queue.db"
        self._away = folder.with_name(f"{folder.name}-away")
        self._disk = disk

    @classmethod
    def missing(cls) -> str | None:
        return None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @contextlib.contextmanager
    def connect(self) -> t.Iterator[sqlite3.Connection]:
        """Open a connection for a block; each statement is a transaction."""
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=30.0)
        with contextlib.closing(connection):
            yield connection

    def execute(self, statement: str, *parameters: t.Any) -> list[tuple[t.Any, ...]]:
        """Run one statement on a new connection; return the rows, if it has any."""
        with self.connect() as connection:
            return connection.execute(statement, parameters).fetchall()

    def frozen(self, seconds: float = 0.0) -> contextlib.AbstractContextManager[None]:
        """Hold the write lock during a block, which begins after ``seconds``."""
        return self._within("BEGIN IMMEDIATE", seconds=seconds)

    def snapshot(self, seconds: float = 0.0) -> contextlib.AbstractContextManager[None]:
        """Read during a block, so that no checkpoint passes this moment."""
        count = "SELECT count(*) FROM sqlite_schema"
        return self._within("BEGIN", count, seconds=seconds)

    def full_disk(self) -> contextlib.AbstractContextManager[None]:
        """Fill the disk during a block."""
        assert self._disk is not None, "only root may mount a small disk"
        return self._disk.full()

    def kill(self) -> None:
        """Take the folder away: the file cannot be opened until `start`."""
        self.folder.rename(self._away)
        self.folder.write_text("A file is where the folder was.")

    def start(self) -> None:
        """Put the folder back."""
        self.folder.unlink()
        self._away.rename(self.folder)

    @contextlib.contextmanager
    def _within(self, *statements: str, seconds: float) -> t.Iterator[None]:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement).fetchall()
            last(seconds)
            try:
                yield
            finally:
                connection.execute("ROLLBACK")
