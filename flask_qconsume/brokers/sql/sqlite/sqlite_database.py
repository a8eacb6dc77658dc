"""SQLite: a native thread writes for all callers, and each caller reads in place."""

from __future__ import annotations

import sqlite3
import time
import typing as t
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import sqlalchemy as sa

from ....databases.busy_retry import is_locked
from ....databases.busy_retry import retry_while_busy
from ....errors import BrokerUnavailable
from .. import statements
from ..database import CALL_TIMEOUT_SECONDS
from ..database import Channel
from ..database import Database
from ..database import Insert
from ..database import Step
from ..database import StepResult
from ..database import WakeReaders
from .change_counter import ChangeCounter
from .compilation import compile_step
from .compilation import compile_transaction
from .compilation import merge_results
from .connection_thread import ThreadHangs
from .connections import connect_to_read
from .connections import connect_to_write
from .connections import keep_undestroyed
from .counts import CountJob
from .counts import CountThread
from .database_file import DatabaseFile
from .errors import check_version
from .errors import make_answer_lost
from .errors import translate
from .file_system import check_free_space
from .file_system import check_is_local
from .file_system import is_in_memory
from .options import SqliteOptions
from .process_socket import OwnSocket
from .process_socket import PeerSockets
from .read_connections import ReadConnections
from .transactions import CommitFailed
from .transactions import Transaction
from .transactions import WriteThread
from .wake_channel import WakeChannel
from .wake_channel import WakeSender

#: Attempts of one claim, if other processes claim the same messages first.
_MAX_CLAIM_ATTEMPTS = 20
_FIND_NAMES = sa.text(
    "SELECT name FROM sqlite_master WHERE name GLOB 'qconsume_*' UNION"
    " SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c"
    " WHERE m.name GLOB 'qconsume_*' AND m.type IN ('table', 'view')"
)


class SqliteDatabase(Database):
    """One SQLite file, used by one process."""

    name = "SQLite"

    def __init__(self, file: DatabaseFile, options: SqliteOptions) -> None:
        path = file.path
        self._file = file
        self._options = options
        self._may_create = False
        self._writer = WriteThread(self._connect_to_write)
        self._counter = CountThread(lambda: connect_to_read(path))
        self._readers = ReadConnections(lambda: connect_to_read(path))
        self._changes = ChangeCounter(lambda: connect_to_read(path))
        self._socket = OwnSocket(path)
        self._peers = PeerSockets(path)

    def write(
        self, steps: Sequence[Step | Insert], timeout: float = CALL_TIMEOUT_SECONDS
    ) -> list[StepResult]:
        self._use_file(create=any(map(_creates_table, steps)))
        compiled, counts = compile_transaction(steps)
        done = self._commit(Transaction(compiled, time.monotonic() + timeout), timeout)
        return merge_results(done, counts)

    def read(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> list[Sequence[t.Any]]:
        self._use_file()
        query = compile_step(statement, parameters)

        def fetch() -> list[Sequence[t.Any]]:
            with self._readers.borrow() as connection:
                return connection.execute(*query).fetchall()

        try:
            # A reader waits only while another process opens or closes the file.
            return retry_while_busy(fetch, timeout)
        except sqlite3.Error as error:
            raise translate(error, self._file.path, timeout) from error

    def read_one(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, t.Any] | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> Sequence[t.Any]:
        self._use_file()
        deadline = time.monotonic() + timeout
        job = CountJob(compile_step(statement, parameters), deadline)
        try:
            self._counter.run(job)
        except ThreadHangs as error:
            self._counter.interrupt()
            raise BrokerUnavailable(
                f"Counting the messages in '{self._file.path}' takes more than"
                f" {timeout:g} s."
            ) from error
        except sqlite3.Error as error:
            raise translate(error, self._file.path, timeout) from error
        return job.row

    def claim(self, link: int, queue: str, room: int) -> list[Sequence[t.Any]]:
        for _ in range(_MAX_CLAIM_ATTEMPTS):
            picked = self.read(statements.PICK, {"queue_": queue, "n": room})
            if not picked:
                break
            mine = {"ids": [row[0] for row in picked], "me": link}
            (claimed,) = self.write([Step(statements.CLAIM, {**mine, "queue_": queue})])
            if claimed.changed:
                return self.read(statements.READ_CLAIMED, mine)
        return []

    def find_names(self) -> set[str]:
        if self._file.is_missing():
            return set()
        return {name for (name,) in self.read(_FIND_NAMES)}

    @property
    def identity(self) -> object:
        return self._file.identify()

    def check(self) -> None:
        check_version()
        check_is_local(self._file.path)
        self._file.check_is_no_folder()

    def check_room(self) -> None:
        check_free_space(self._file.path, self._options.min_free_space)

    def caveats(self) -> list[str]:
        path, found = self._file.path, []
        if self._options.synchronous != "full":
            found.append(
                "With 'synchronous' = 'normal', a crash of the machine, unlike that of"
                " a process, loses the latest messages."
            )
        if is_in_memory(path):
            found.append(
                f"'{path}' is in memory: a restart of the machine loses all messages."
            )
        return found

    def open_channel(self, wake_readers: WakeReaders) -> Channel:
        sender = WakeSender(self._peers, self._find_readers)
        return WakeChannel(
            sender, lambda: self._socket.opened, self._has_changed, wake_readers
        )

    @property
    def process(self) -> str:
        own = self._socket.open()
        return "" if own is None else own.process

    def is_dead(self, process: str) -> bool:
        return self._peers.is_dead(process)

    def forget(self, process: str) -> None:
        self._peers.forget(process)

    def close(self) -> None:
        # The last connection that is closed writes the log back to the file, which
        # takes long. So the connection of the writing thread is closed last.
        self._close_reading()
        self._counter.close()
        self._writer.close()
        self._socket.close()

    def abandon_after_fork(self) -> None:
        owners = (self._writer, self._counter, self._changes)
        connections = [owner.connection for owner in owners]
        for connection in (*connections, *self._readers.list_all()):
            if connection is not None:
                keep_undestroyed(connection)
        if self._socket.opened is not None:
            self._socket.opened.leave_to_parent()

    def _use_file(self, create: bool = False) -> None:
        """Open the file, or the new file that has replaced it."""
        if self._file.is_open() and not self._writer.is_closed:
            return
        self._close_reading()
        self._counter.reopen()
        self._writer.reopen()
        self._may_create = self._may_create or create
        self.check()
        if not create:
            self._file.check_exists()
        # The thread recovers the log after a crash before any caller reads.
        self._commit(
            Transaction((), time.monotonic() + CALL_TIMEOUT_SECONDS),
            CALL_TIMEOUT_SECONDS,
        )

    def _close_reading(self) -> None:
        self._readers.close()
        self._changes.close()

    def _has_changed(self) -> bool:
        self._use_file()
        try:
            return self._changes.has_changed()
        except sqlite3.Error as error:
            if is_locked(error):
                return True
            raise translate(error, self._file.path, 0.0) from error

    def _find_readers(self, queues: Collection[str]) -> set[str]:
        """Return the other processes that consume one of these queues."""
        rows = self.read(statements.READ_READERS, {"queues": sorted(queues)})
        opened = self._socket.opened
        own = "" if opened is None else opened.process
        return {process for (process,) in rows} - {own}

    def _connect_to_write(self) -> sqlite3.Connection:
        create = self._may_create
        if create:
            self._file.prepare_folder()
        connection = connect_to_write(
            self._file.path, self._options.synchronous, create
        )
        self._file.note_open()
        return connection

    def _commit(self, transaction: Transaction, timeout: float) -> list[StepResult]:
        path = self._file.path
        try:
            self._writer.run(transaction)
        except CommitFailed as error:
            raise make_answer_lost(path, str(error)) from error
        except ThreadHangs as error:
            if error.started:
                raise make_answer_lost(path, f"{timeout:g} s have passed") from error
            raise translate(error, path, timeout) from error
        except Exception as error:
            raise translate(error, path, timeout) from error
        return transaction.done


def _creates_table(step: Step | Insert) -> bool:
    return isinstance(step, Step) and isinstance(step.statement, sa.schema.CreateTable)
