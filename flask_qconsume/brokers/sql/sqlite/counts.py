"""Counts of many rows, in a native thread with a connection of its own.

This code runs in a native thread; see ``connection_thread.py``.
"""

from __future__ import annotations

import sqlite3
import typing as t
from collections.abc import Sequence

from .connection_thread import ConnectionJob
from .connection_thread import ConnectionThread
from .transactions import CompiledStep


class CountJob(ConnectionJob):
    """A query that has one row, and may look at many."""

    def __init__(self, query: CompiledStep, deadline: float) -> None:
        super().__init__(deadline)
        self.query = query
        self.row: Sequence[t.Any] = ()


class CountThread(ConnectionThread):
    """Counts for all callers, one after the other."""

    name = "sqlite-count"

    def interrupt(self) -> None:
        """End a query that takes too long."""
        if self.connection is not None:
            self.connection.interrupt()

    def _serve(
        self, connection: sqlite3.Connection, jobs: Sequence[ConnectionJob]
    ) -> None:
        for job in t.cast("Sequence[CountJob]", jobs):
            try:
                job.row = connection.execute(*job.query).fetchone()
            except Exception as error:
                job.finish(error)
            else:
                job.finish()
