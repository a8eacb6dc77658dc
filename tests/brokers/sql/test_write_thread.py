"""SQLite's writing thread: transactions of several callers, beside gevent's hub."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time
import typing as t

import gevent
import pytest
import sqlalchemy as sa

from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.database import StepResult
from flask_qconsume.brokers.sql.sqlite.database_file import DatabaseFile
from flask_qconsume.brokers.sql.sqlite.options import SqliteOptions
from flask_qconsume.brokers.sql.sqlite.sqlite_database import SqliteDatabase
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerUnavailable

from ...harness.scripts import run_script
from ...servers.sqlite import SQLiteFile
from ...waiting import last
from ...waiting import wait_for

T = t.TypeVar("T")

ADD = sa.text("INSERT INTO number VALUES (:n)")
COUNT = sa.text("SELECT count(*) FROM number")


@pytest.fixture
def database(sqlite_file: SQLiteFile) -> t.Iterator[SqliteDatabase]:
    """A database with a table ``number``, whose numbers are unique."""
    sqlite_file.execute("CREATE TABLE number (n INTEGER PRIMARY KEY)")
    database = open_database(sqlite_file.path)
    yield database
    database.close()


def open_database(path: pathlib.Path, **options: t.Any) -> SqliteDatabase:
    return SqliteDatabase(DatabaseFile(path, False), SqliteOptions(**options))


def add(
    database: SqliteDatabase, *numbers: int, timeout: float = 20.0
) -> list[StepResult]:
    return database.write([Step(ADD, {"n": n}) for n in numbers], timeout)


def add_first(database: SqliteDatabase, number: int) -> gevent.Greenlet:
    """Write a number while the lock is taken; return once the thread has tried it."""
    connection = database._writer.connection
    assert connection is not None
    tried: list[str] = []
    connection.set_trace_callback(tried.append)
    writer = gevent.spawn(add, database, number)
    wait_for(lambda: tried)
    connection.set_trace_callback(None)
    return writer


def add_in_line(database: SqliteDatabase, *sets: tuple[int, ...]) -> list[t.Any]:
    """Write sets of numbers, each in a transaction, while another one waits."""
    first = add_first(database, -1)
    waiting = [gevent.spawn(_catch, add, database, *some) for some in sets]
    wait_for(lambda: database._writer._jobs.qsize() == len(sets))
    return [first, *waiting]


def _catch(call: t.Callable[..., T], *args: t.Any) -> T | Exception:
    try:
        return call(*args)
    except BrokerError as error:
        return error


def count(database: SqliteDatabase) -> int:
    return int(database.read(COUNT)[0][0])


class HubGaps:
    """Measures the longest time, in seconds, for which the hub stood still."""

    def __enter__(self) -> HubGaps:
        self.longest = 0.0
        self._last = time.perf_counter()
        self._timer = gevent.get_hub().loop.timer(0.001, repeat=0.001)
        self._timer.start(self._measure)
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.stop()
        self._timer.close()

    def _measure(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now


def test_the_hub_runs_while_another_program_has_the_lock(
    database: SqliteDatabase, sqlite_file: SQLiteFile
) -> None:
    add(database, 1)
    with HubGaps() as gaps:
        with sqlite_file.frozen():
            writer = gevent.spawn(add, database, 2)
            # Reading needs no lock.
            assert not writer.ready() and count(database) == 1
            last(0.5)
            assert not writer.ready()
        writer.get(timeout=20)
    assert count(database) == 2
    # SQLite's own wait would take the half second in one piece.
    assert gaps.longest < 0.3


def test_transactions_that_wait_are_committed_together(
    database: SqliteDatabase, sqlite_file: SQLiteFile
) -> None:
    add(database, 0)
    statements: list[str] = []
    connection = database._writer.connection
    assert connection is not None
    with sqlite_file.frozen():
        pairs = [(n, n + 100) for n in range(1, 51)]
        writers = add_in_line(database, *pairs)
        connection.set_trace_callback(statements.append)
    gevent.joinall(writers, timeout=20, raise_error=True)
    assert count(database) == 102
    assert statements.count("COMMIT") == 1
    connection.set_trace_callback(None)


@pytest.mark.parametrize("bad", [(100, 7), (1 << 70,)], ids=["twice", "too large"])
def test_a_transaction_that_fails_leaves_its_neighbours_alone(
    database: SqliteDatabase, sqlite_file: SQLiteFile, bad: tuple[int, ...]
) -> None:
    add(database, 7)
    with sqlite_file.frozen():
        writers = add_in_line(database, (1,), (2,), bad, (3, 4))
    gevent.joinall(writers, timeout=20)
    failed = [isinstance(each.value, BrokerError) for each in writers]
    assert failed == [False, False, False, True, False]
    # Also the first statement of the bad one is undone.
    assert count(database) == 6


def test_a_lock_that_stays_is_an_outage(
    database: SqliteDatabase, sqlite_file: SQLiteFile
) -> None:
    add(database, 1)
    with (
        sqlite_file.frozen(),
        pytest.raises(BrokerUnavailable, match="kept '.*queue.db' locked for 0.2 s"),
    ):
        add(database, 2, timeout=0.2)
    add(database, 3)
    assert count(database) == 2


def test_a_caller_that_was_interrupted_does_not_write_later(
    database: SqliteDatabase, sqlite_file: SQLiteFile
) -> None:
    add(database, 1)
    with sqlite_file.frozen():
        first = add_first(database, 2)
        waiting = gevent.spawn(add, database, 3)
        wait_for(lambda: database._writer._jobs.qsize() == 1)
        waiting.kill()
    first.get(timeout=20)
    add(database, 4)
    assert sorted(n for (n,) in database.read(sa.text("SELECT n FROM number"))) == [
        *(1, 2, 4)
    ]


def test_an_empty_queue_takes_no_lock(
    database: SqliteDatabase, sqlite_file: SQLiteFile
) -> None:
    sqlite_file.execute(
        "CREATE TABLE qconsume_message (id, queue, rank, owner, due, redelivered,"
        " key, meta, body)"
    )
    add(database, 1)
    with sqlite_file.frozen():
        assert database.claim(1, "billing", 10) == []


def test_a_count_keeps_neither_readers_nor_writers_waiting(
    database: SqliteDatabase,
) -> None:
    slow = sa.text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT count(*) FROM n"
    )
    with HubGaps() as gaps:
        endless = gevent.spawn(database.read_one, slow, None, 1.0)
        wait_for(lambda: database._counter.is_busy.locked())
        add(database, 1)
        assert count(database) == 1
        assert not endless.ready()
        with pytest.raises(BrokerUnavailable, match="takes more than 1 s"):
            endless.get(timeout=20)
    assert gaps.longest < 0.3
    # The query was ended.
    assert tuple(database.read_one(COUNT)) == (1,)


def test_closing_ends_the_threads_and_the_next_call_starts_them(
    database: SqliteDatabase,
) -> None:
    add(database, 1)
    database.read_one(COUNT)
    threads = [database._writer._thread, database._counter._thread]
    database.close()
    assert not any(thread.alive for thread in threads if thread)
    assert None not in threads
    add(database, 2)
    assert count(database) == 2


PROCESSES = """
import os, pathlib, sys, threading
sys.argv = ["script", {path!r}]
{preparation}
import sqlalchemy as sa
from tests.brokers.sql.test_write_thread import add, count, open_database
from flask_qconsume.first_use import PerProcess
path = pathlib.Path(sys.argv[1])
used = PerProcess(lambda: open_database(path), lambda d: d.abandon_after_fork())
add(used.get(), 0); count(used.get())
"""

FORK = (
    PROCESSES
    + """
children = []
for n in (1000, 2000):
    child = os.fork()
    if not child:
        for i in range(n, n + 50):
            add(used.get(), i)
        used.take().close()
        os._exit(0 if count(used.get()) >= 51 else 1)
    children.append(child)
for i in range(1, 51):
    add(used.get(), i)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print(count(used.get()))
"""
)

#: SQLite deletes the log when the last process closes the file. A child that has copied
#: the parent's connections would write into the deleted log.
PARENT_CLOSES = (
    PROCESSES
    + """
import subprocess
written, write = os.pipe()
closed, close = os.pipe()
child = os.fork()
if not child:
    add(used.get(), 1); os.write(write, b"x"); os.read(closed, 1)
    add(used.get(), 2); os.write(write, b"x"); os.read(closed, 1)
    os._exit(0)
os.read(written, 1)
used.take().close()
look = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
look += "print(c.execute('SELECT count(*) FROM number').fetchone()[0])"
def show():
    command = [sys.executable, "-c", look, str(path)]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
first = show()
os.write(close, b"x"); os.read(written, 1)
print(first, show())
os.write(close, b"x"); os.waitpid(child, 0)
"""
)

THREADS = (
    PROCESSES
    + """
def work(n):
    for i in range(n, n + 50):
        add(used.get(), i); count(used.get())
threads = [threading.Thread(target=work, args=(n,)) for n in range(100, 900, 100)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(count(used.get()))
"""
)

#: The lock is held as the thread does while it is inside of SQLite.
FORK_WAITS = (
    PROCESSES
    + """
import time
from flask_qconsume.native_threads import Latch, get_unpatched
busy, released = used.get()._writer.is_busy, []
busy.acquire()
def release():
    Latch().wait(0.3)
    released.append(1)
    busy.release()
get_unpatched("_thread", "start_new_thread")(release, ())
child = os.fork()
if not child:
    os._exit(0 if released else 1)
assert released and os.waitpid(child, 0)[1] == 0
add(used.get(), 1)
print(count(used.get()))
"""
)

#: Each transaction has a time limit, after which it would fail.
NEVER_REST = (
    PROCESSES
    + """
child = os.fork()
first = 1 if child else 1000
for n in range(first, first + 200):
    add(used.get(), n, timeout=20)
if not child:
    used.take().close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(count(used.get()))
"""
)

#: A limit for the size of files makes the disk fail: "disk I/O error".
DISK_FAILS = (
    PROCESSES
    + """
import resource
from flask_qconsume.broker.publish_request import AnswerLost
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
size = os.stat(str(path) + "-wal").st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, most))
stored = 1
try:
    for n in range(1, 100):
        add(used.get(), n, n + 1000)
        stored += 2
except AnswerLost as error:
    assert "has not confirmed a transaction: disk I/O error" in str(error), error
else:
    raise SystemExit("the disk has not failed")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
add(used.get(), 5000)
print(count(used.get()) - stored)
"""
)

PATCH = "import gevent.monkey; gevent.monkey.patch_all()"


@pytest.mark.process
@pytest.mark.parametrize("preparation", ["", PATCH], ids=["plain", "gevent"])
@pytest.mark.parametrize(
    ("script", "rows"),
    [
        pytest.param(FORK, 151, id="fork"),
        pytest.param(FORK_WAITS, 2, id="fork waits"),
        pytest.param(PARENT_CLOSES, "2 3", id="parent closes"),
        pytest.param(THREADS, 401, id="threads"),
        pytest.param(NEVER_REST, 401, id="never rest"),
        pytest.param(DISK_FAILS, 1, id="disk fails"),
    ],
)
def test_processes_and_threads(
    script: str, rows: int | str, preparation: str, sqlite_file: SQLiteFile
) -> None:
    """At the end the process exits without closing the database."""
    sqlite_file.execute("CREATE TABLE number (n INTEGER PRIMARY KEY)")
    path = str(sqlite_file.path)
    code = script.format(path=path, preparation=preparation)
    done = run_script(code, measured=False)
    assert (done.stdout.strip(), done.stderr) == (str(rows), "")
    assert sqlite_file.execute("PRAGMA integrity_check") == [("ok",)]


KILLED = """
import pathlib, sys
from tests.brokers.sql.test_write_thread import add, open_database
database = open_database(pathlib.Path(sys.argv[1]))
n = int(sys.argv[2])
while True:
    n += 1
    add(database, n)
    print(n, flush=True)
"""


@pytest.mark.process
@pytest.mark.long
def test_twenty_kills_lose_nothing_that_was_confirmed(sqlite_file: SQLiteFile) -> None:
    sqlite_file.execute("CREATE TABLE number (n INTEGER PRIMARY KEY)")
    newest = 0
    for _ in range(20):
        command = [sys.executable, "-c", KILLED, str(sqlite_file.path), str(newest)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            confirmed = [int(process.stdout.readline()) for _ in range(20)]
            process.kill()
            confirmed += [int(line) for line in process.stdout if line.endswith("\n")]
        ((rows, newest),) = sqlite_file.execute("SELECT count(*), max(n) FROM number")
        assert rows == newest >= confirmed[-1]
        assert sqlite_file.execute("PRAGMA integrity_check") == [("ok",)]
