"""Files of SQLite that cannot be used, disks that are full, rows of other programs."""

from __future__ import annotations

import os
import pathlib
import sqlite3
import subprocess
from collections.abc import Callable

import pytest

from flask_qconsume.broker.compose import compose
from flask_qconsume.brokers.sql.sqlite.errors import check_version
from flask_qconsume.brokers.sql.sqlite.file_system import check_is_local
from flask_qconsume.brokers.sql.sqlite.file_system import find_kind
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import ConfigurationError
from flask_qconsume.errors import PublishRefused
from flask_qconsume.errors import TopologyMismatch

from ...servers.sqlite import SQLiteFile
from .tools import EXCHANGE
from .tools import QUEUE
from .tools import SqlQueue
from .tools import bodies

OpenQueue = Callable[..., SqlQueue]


def publish(
    queue: SqlQueue, body: object = 1, timeout: float = 0.3
) -> Exception | None:
    return queue.broker.publish([compose(EXCHANGE, QUEUE, body)], timeout)[0]


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite://host/file", "sqlite:///file:a.db"]
)
def test_a_url_names_a_file(url: str, open_queue: OpenQueue) -> None:
    with pytest.raises(ConfigurationError, match="names no file: write 'sqlite:///"):
        open_queue(url)


@pytest.mark.parametrize("rest", ["?mode=ro", "#1"])
def test_a_url_has_no_options(rest: str, open_queue: OpenQueue) -> None:
    with pytest.raises(ConfigurationError, match="QCONSUME_TRANSPORT_OPTIONS"):
        open_queue(f"sqlite:///queue.db{rest}")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"synchron": "full"}, "did you mean 'synchronous'"),
        ({"synchronous": "off"}, "must be 'full' or 'normal', not 'off'"),
        ({"min_free_space": -1}, "must be a number of bytes, not '-1'"),
    ],
)
def test_wrong_options_are_refused(
    option: dict[str, object], text: str, open_queue: OpenQueue
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        open_queue("sqlite:///queue.db", transport_options=option)


def test_a_path_may_have_any_characters(
    tmp_path: pathlib.Path, open_queue: OpenQueue
) -> None:
    open_queue(f"sqlite:///{tmp_path}/a%20b%3F%23%25.db").publish(1)
    assert (tmp_path / "a b?#%.db").exists()


def test_only_declaring_creates_a_file(
    sqlite_file: SQLiteFile, open_queue: OpenQueue
) -> None:
    queue = open_queue(sqlite_file.url)
    assert queue.broker.read_backlog([queue.plan], 5)[0].waiting == 0
    with pytest.raises(TopologyMismatch, match="There is no file '.*queue.db'. Is "):
        list(queue.broker.dead_letters(queue.plan))
    assert list(sqlite_file.folder.iterdir()) == []
    queue.broker.declare()
    assert sqlite_file.path.exists()


def test_a_folder_is_no_file(tmp_path: pathlib.Path, open_queue: OpenQueue) -> None:
    queue = open_queue(f"sqlite:///{tmp_path}")
    with pytest.raises(BrokerRefused, match="is a folder"):
        queue.broker.declare()


def test_a_missing_folder_may_be_mounted_later(
    tmp_path: pathlib.Path, open_queue: OpenQueue
) -> None:
    queue = open_queue(f"sqlite:///{tmp_path}/disk/queue.db")
    with pytest.raises(BrokerUnavailable, match="There is no folder '.*disk'"):
        queue.broker.declare()
    (tmp_path / "disk").mkdir()
    queue.publish(1)


def test_another_file_is_left_alone(
    sqlite_file: SQLiteFile, open_queue: OpenQueue
) -> None:
    sqlite_file.path.write_text("A text, and no database." * 100)
    queue = open_queue(sqlite_file.url)
    with pytest.raises(TopologyMismatch, match="cannot be read as a database"):
        queue.broker.declare()
    assert sqlite_file.path.read_text().startswith("A text")


@pytest.mark.process
def test_a_read_only_disk_is_refused(
    own_sqlite: SQLiteFile, open_queue: OpenQueue
) -> None:
    if own_sqlite._disk is None:
        pytest.skip("only root may mount a file system")
    first = open_queue(own_sqlite.url)
    first.publish(1)
    first.close()
    mount = ["mount", "-o", "remount,ro", str(own_sqlite._disk.folder)]
    subprocess.run(mount, check=True)
    with pytest.raises(BrokerRefused, match="needs permission to read and write"):
        open_queue(own_sqlite.url).broker.declare()


@pytest.mark.process
def test_a_full_disk_loses_nothing(
    own_sqlite: SQLiteFile, open_queue: OpenQueue
) -> None:
    if own_sqlite._disk is None:
        pytest.skip("only root may mount a file system")
    queue = open_queue(own_sqlite.url, transport_options={"min_free_space": 0})
    queue.publish("first")
    confirmed = 1
    with own_sqlite.full_disk():
        while (error := publish(queue, "x" * 5_000)) is None:
            confirmed += 1
        assert isinstance(error, BrokerError)
        assert "is full. Nothing is lost; make room" in str(error.__cause__ or error)
        assert queue.broker.depth(QUEUE) == confirmed
    queue.publish("last")
    link = queue.link()
    link.ack(queue.take(link, confirmed + 1))
    assert queue.broker.depth(QUEUE) == 0
    assert own_sqlite.execute("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.process
def test_a_nearly_full_disk_takes_no_new_messages(
    own_sqlite: SQLiteFile, open_queue: OpenQueue
) -> None:
    if own_sqlite._disk is None:
        pytest.skip("only root may mount a file system")
    queue = open_queue(own_sqlite.url)
    queue.publish(*range(10))
    rest = own_sqlite._disk.folder / "rest"
    found = os.statvfs(rest.parent)
    rest.write_bytes(bytes(found.f_bavail * found.f_frsize - (10 << 20)))
    error = publish(queue)
    assert isinstance(error, PublishRefused)
    assert "Make room, or set the transport option 'min_free_space'" in str(error)
    # What is there is handled.
    link = queue.link()
    link.ack(queue.take(link, 10))
    assert queue.broker.depth(QUEUE) == 0
    rest.unlink()
    assert publish(queue, timeout=20) is None


def test_a_file_that_is_deleted_is_made_again(
    sqlite_file: SQLiteFile, open_queue: OpenQueue
) -> None:
    queue = open_queue(sqlite_file.url)
    queue.publish(1)
    link = queue.link()
    for path in sqlite_file.folder.iterdir():
        path.unlink()
    with pytest.raises(BrokerUnavailable, match="There is no file '.*queue.db' any"):
        link.keep_alive()
    queue.publish(2)
    assert bodies(queue.take(queue.link(), 1)) == [b"2"]
    assert sqlite_file.execute("SELECT count(*) FROM qconsume_message") == [(1,)]


def test_a_file_that_is_replaced_is_used(
    sqlite_file: SQLiteFile, tmp_path: pathlib.Path, open_queue: OpenQueue
) -> None:
    other = SQLiteFile(tmp_path / "other")
    first = open_queue(other.url)
    first.publish("other")
    first.close()
    queue = open_queue(sqlite_file.url)
    queue.publish("first")
    # A backup that is put back while the program runs.
    for path in sqlite_file.folder.iterdir():
        path.unlink()
    os.replace(other.path, sqlite_file.path)
    queue.publish("second")
    assert bodies(queue.take(queue.link(), 2)) == [b'"other"', b'"second"']


def test_a_folder_that_comes_back_is_used_again(
    tmp_path: pathlib.Path, open_queue: OpenQueue
) -> None:
    file = SQLiteFile(tmp_path / "folder")
    queue = open_queue(file.url)
    queue.publish(1)
    file.kill()
    error = publish(queue)
    assert isinstance(error, BrokerError)
    file.start()
    queue.publish(2)
    assert bodies(queue.take(queue.link(), 2)) == [b"1", b"2"]


MOUNTS = """\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 21 0:25 / /mnt rw shared:1 - tmpfs tmpfs rw
31 30 0:26 / /mnt/queue rw master:3 - nfs4 server:/queue rw
32 30 0:27 / /mnt/my\\040folder rw - fuse.sshfs me@host: rw
33 30 0:28 / /mnt/over rw - ext4 /dev/sdb rw
34 30 0:29 / /mnt/over rw - cifs //host/share rw
a line of another kind
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/queue.db", "ext4"),
        ("/mnt/queue.db", "tmpfs"),
        ("/mnt/queue/queue.db", "nfs4"),
        ("/mnt/queue/folder/queue.db", "nfs4"),
        ("/mnt/queue-2/queue.db", "tmpfs"),
        ("/mnt/my folder/queue.db", "fuse.sshfs"),
        ("/mnt/over/queue.db", "cifs"),
    ],
)
def test_the_file_system_of_a_path_is_found(
    path: str, kind: str, tmp_path: pathlib.Path
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert find_kind(pathlib.Path(path), mounts) == kind
    assert find_kind(pathlib.Path(path), tmp_path / "missing") == ""


def test_a_network_share_is_refused(tmp_path: pathlib.Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    with pytest.raises(BrokerRefused, match="is on a network share \\(fuse.sshfs\\)"):
        check_is_local(pathlib.Path("/mnt/my folder/queue.db"), mounts)
    check_is_local(pathlib.Path("/mnt/queue.db"), mounts)


def test_an_old_sqlite_is_refused() -> None:
    check_version((3, 35, 0))
    with pytest.raises(BrokerRefused, match="has SQLite 3.34.1, and .* need 3.35.0"):
        check_version((3, 34, 1))


def test_normal_commits_are_told(
    sqlite_file: SQLiteFile, open_queue: OpenQueue
) -> None:
    options = {"synchronous": "normal"}
    queue = open_queue(sqlite_file.url, transport_options=options)
    queue.publish(1)
    assert any("loses the latest messages" in text for text in queue.broker.caveats())
    connection = queue.broker._shared.database._writer.connection  # type: ignore[attr-defined]
    assert connection.execute("PRAGMA synchronous").fetchone() == (1,)


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("due", "'tomorrow'"),
        ("expires", "'never'"),
        ("rank", "'high'"),
        ("owner", "'me'"),
        ("body", "NULL"),
        ("key", "x'00'"),
    ],
)
def test_a_row_with_a_wrong_type_is_refused_where_it_is_inserted(
    columns: str, values: str, sqlite_file: SQLiteFile, open_queue: OpenQueue
) -> None:
    queue = open_queue(sqlite_file.url)
    queue.broker.declare()
    body = "" if columns == "body" else ", body"
    statement = f"INSERT INTO qconsume_message (queue, {columns}{body})"
    with pytest.raises(sqlite3.IntegrityError):
        sqlite_file.execute(f"{statement} VALUES ('billing', {values}{body and ', 1'})")


@pytest.mark.parametrize(
    "meta", ["x'ff'", "7", "CAST(x'ff' AS TEXT)", "'[]'", "'{'", "'{\"headers\": 1}'"]
)
def test_a_strange_row_does_not_stop_the_queue(
    meta: str, sqlite_file: SQLiteFile, open_queue: OpenQueue
) -> None:
    queue = open_queue(sqlite_file.url)
    queue.broker.declare()
    insert = "INSERT INTO qconsume_message (queue, meta, key, redelivered, body)"
    sqlite_file.execute(
        f"{insert} VALUES ('billing', {meta}, CAST(x'fe' AS TEXT), 'yes',"
        " CAST(x'fd' AS TEXT))"
    )
    queue.publish(2)
    found = queue.take(queue.link(), 2)
    assert bodies(found) == [b"\xfd", b"2"]
