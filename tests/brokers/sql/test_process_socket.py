"""Wake-ups between the processes of one SQLite file, and those that were killed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import typing as t
from collections.abc import Callable
from collections.abc import Collection

import pytest
import sqlalchemy as sa

from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.sqlite.process_socket import find_host
from flask_qconsume.brokers.sql.sqlite.sqlite_database import SqliteDatabase
from flask_qconsume.brokers.sql.sqlite.wake_channel import WakeChannel

from ...servers.sqlite import SQLiteFile
from ...waiting import wait_for
from .test_write_thread import open_database
from .tools import SqlQueue
from .tools import bodies

OpenQueue = Callable[..., SqlQueue]
Heard = list[Collection[str] | None]

_LINK = sa.text(
    "INSERT INTO qconsume_link (queue, until, process) VALUES (:queue, 1e12, :process)"
)


@pytest.fixture
def own_folder() -> t.Iterator[pathlib.Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="qconsume-") as name:
        yield pathlib.Path(name)


@pytest.fixture
def file(own_folder: pathlib.Path) -> SQLiteFile:
    return SQLiteFile(own_folder)


@pytest.fixture
def queue(file: SQLiteFile, open_queue: OpenQueue) -> SqlQueue:
    """A queue in the file, which is declared."""
    queue = open_queue(file.url)
    queue.broker.declare()
    return queue


@pytest.fixture
def databases(
    file: SQLiteFile, queue: SqlQueue
) -> t.Iterator[tuple[SqliteDatabase, SqliteDatabase]]:
    """The file as two processes have it."""
    two = open_database(file.path), open_database(file.path)
    yield two
    for database in two:
        database.close()


@contextlib.contextmanager
def hearing(database: SqliteDatabase, queue: str) -> t.Iterator[Heard]:
    """What is announced to a database that consumes a queue."""
    heard: Heard = []
    process = database.process
    database.write([Step(_LINK, {"queue": queue, "process": process})])
    channel = database.open_channel(heard.append)
    channel.has_changes()
    yield heard
    channel.close()


@contextlib.contextmanager
def announcing(database: SqliteDatabase) -> t.Iterator[WakeChannel]:
    channel = database.open_channel(lambda queues: None)
    assert isinstance(channel, WakeChannel)
    yield channel
    channel.close()


def test_processes_that_consume_a_queue_are_woken(
    databases: tuple[SqliteDatabase, SqliteDatabase],
) -> None:
    reader, writer = databases
    with hearing(reader, "billing") as heard, announcing(writer) as channel:
        channel.announce({"shipping"})
        channel.announce({"billing", "order"})
        wait_for(lambda: heard)
        assert heard in ([["billing", "order"]], [["order", "billing"]])


def test_wake_ups_of_a_busy_publisher_are_few(
    databases: tuple[SqliteDatabase, SqliteDatabase],
) -> None:
    reader, writer = databases
    with hearing(reader, "billing") as heard, announcing(writer) as channel:
        began = time.monotonic()
        for _ in range(2_000):
            channel.announce({"billing"})
        most = (time.monotonic() - began) / 0.003 + 2
        wait_for(lambda: heard)
        channel.announce({"last", "billing"})
        wait_for(lambda: any("last" in (names or ()) for names in heard))
    assert 2 <= len(heard) <= most + 2


def test_names_that_are_too_long_wake_all_readers(
    databases: tuple[SqliteDatabase, SqliteDatabase],
) -> None:
    reader, writer = databases
    long = "q" * 9_000
    with hearing(reader, long) as heard, announcing(writer) as channel:
        channel.announce({long})
        wait_for(lambda: heard)
    assert heard == [None]


def test_a_message_of_another_process_comes_by_its_wake_up(
    file: SQLiteFile, queue: SqlQueue, open_queue: OpenQueue
) -> None:
    link = queue.link()
    other = open_queue(file.url)
    for number in range(20):
        other.publish(number)
        assert bodies(queue.take(link, 1)) == [str(number).encode()]


@pytest.mark.parametrize("body", ["'text'", "x'00ff'", "7", "1.5"])
def test_a_row_of_another_program_comes_without_a_wake_up(
    body: str, file: SQLiteFile, queue: SqlQueue
) -> None:
    link = queue.link()
    file.execute(
        f"INSERT INTO qconsume_message (queue, body) VALUES ('billing', {body})"
    )
    (delivery,) = queue.take(link, 1, timeout=5)
    assert delivery.message.raw in {b"text", b"\x00\xff", b"7", b"1.5"}


def test_a_path_that_is_too_long_for_a_socket_is_polled(
    own_folder: pathlib.Path, open_queue: OpenQueue
) -> None:
    file = SQLiteFile(own_folder / ("long" * 30))
    queue = open_queue(file.url)
    queue.broker.declare()
    assert queue.broker._shared.database.process == ""
    link = queue.link()
    other = open_queue(file.url)
    other.publish(1)
    assert bodies(queue.take(link, 1, timeout=5)) == [b"1"]
    assert list(file.folder.glob("*.sock")) == []


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_has_the_permissions_of_the_file(
    mode: int, file: SQLiteFile, queue: SqlQueue
) -> None:
    file.path.chmod(mode)
    queue.link()
    (path,) = file.folder.glob("*.sock")
    assert path.stat().st_mode & 0o777 == mode


def test_a_closed_broker_leaves_no_socket(file: SQLiteFile, queue: SqlQueue) -> None:
    queue.link()
    queue.close()
    assert {path.name for path in file.folder.iterdir()} == {"queue.db"}


HOLDER = """
import gevent.monkey; gevent.monkey.patch_all()
import sys
from tests.brokers.sql.tools import SqlQueue
queue = SqlQueue(sys.argv[1])
link = queue.link()
queue.publish(1, 2)
assert len(queue.take(link, 2)) == 2
print(queue.broker._shared.database.process, flush=True)
import threading; threading.Event().wait()
"""


@contextlib.contextmanager
def holder(url: str) -> t.Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds two messages, and the text that names it."""
    command = [sys.executable, "-c", HOLDER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.process
def test_messages_of_a_killed_process_come_at_once_and_marked(
    file: SQLiteFile, queue: SqlQueue
) -> None:
    with holder(file.url) as (process, name):
        early = queue.link()
        assert early.read(1) == []
        process.kill()
        process.wait()
        began = time.monotonic()
        link = queue.link()
        found = queue.take(link, 2)
        # Not after the lease of 60 s.
        assert time.monotonic() - began < 5
        assert [each.message.redelivered for each in found] == [True, True]
        assert name.partition("/")[2] not in os.listdir(file.folder)


@pytest.mark.process
def test_links_that_are_open_notice_it_with_their_next_renewal(
    file: SQLiteFile, queue: SqlQueue
) -> None:
    link = queue.link()
    with holder(file.url) as (process, _):
        process.kill()
        process.wait()
        link.keep_alive()
        assert len(queue.take(link, 2)) == 2


@pytest.mark.process
def test_a_living_process_is_never_taken_for_dead(
    file: SQLiteFile, queue: SqlQueue
) -> None:
    database = queue.broker._shared.database
    with holder(file.url) as (process, name):
        host, _, socket_name = name.partition("/")
        assert not database.is_dead(name)
        process.send_signal(signal.SIGSTOP)
        assert not database.is_dead(name)
        (file.folder / socket_name).unlink()
        assert not database.is_dead(name)
        link = queue.link()
        assert link.read(1) == []


@pytest.mark.parametrize(
    "process",
    ["", "elsewhere/queue.db-1-aa.sock", "HOST/queue.db", "HOST/queue.db-wal"],
)
def test_a_file_that_is_no_socket_of_this_host_proves_nothing(
    process: str, queue: SqlQueue
) -> None:
    database = queue.broker._shared.database
    process = process.replace("HOST", find_host())
    assert not database.is_dead(process)
    database.forget(process)
    assert queue.broker.depth("billing") == 0


FORKED = """
import os, sys, threading
{preparation}
from tests.brokers.sql.tools import SqlQueue
queue = SqlQueue(sys.argv[1])
link = queue.link()
print(queue.broker._shared.database.process, flush=True)
if not os.fork():
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Event().wait()
"""


@pytest.mark.process
@pytest.mark.parametrize(
    "preparation", ["", "import gevent.monkey; gevent.monkey.patch_all()"]
)
def test_a_killed_process_is_dead_while_its_child_lives(
    preparation: str, file: SQLiteFile, queue: SqlQueue
) -> None:
    database = queue.broker._shared.database
    code = FORKED.format(preparation=preparation)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", code, file.url]
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        name, child = process.stdout.readline().strip(), process.stdout.readline()
        assert not database.is_dead(name)
        process.kill()
        os.waitpid(process.pid, 0)
        os.kill(int(child), 0)
        assert database.is_dead(name)
        process.returncode = 0


def test_sockets_of_an_earlier_boot_are_deleted(
    file: SQLiteFile, queue: SqlQueue
) -> None:
    old = file.folder / "queue.db-1-aaaa.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(old))
    queue.link()
    assert not old.exists()
    assert len(list(file.folder.glob("*.sock"))) == 1
