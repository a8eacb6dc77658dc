"""Opens connections of Python's driver, each for one purpose.

No connection waits for locks inside of SQLite, where a hub of gevent would stand still.
"""

from __future__ import annotations

import ctypes
import pathlib
import sqlite3
import typing as t
from urllib.parse import quote

from .errors import InheritedConnection
from .errors import WriteAheadLogRefused
from .fork_safety import has_inherited_connection

#: Pragmas of each connection that writes. A log that grew during a long read of another
#: program is cut to the given size, 64 MiB.
_WRITING = ("journal_size_limit = 67108864", "secure_delete = off")


def connect_to_write(
    path: pathlib.Path, synchronous: str, create: bool
) -> sqlite3.Connection:
    """Open a connection that writes; called in a native thread.

    :param synchronous: SQLite's word: ``full`` or ``normal``.
    :param create: Whether a missing file is created.
    :raises sqlite3.Error: if SQLite refuses the file.
    :raises WriteAheadLogRefused: if the file system lacks what the log needs.
    """
    connection = _connect(path, "rwc" if create else "rw")
    try:
        _set_up_writing(connection, synchronous)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: pathlib.Path) -> sqlite3.Connection:
    """Open a connection that cannot change anything.

    The connection also reads texts that are not UTF-8, which other programs may store.
    """
    connection = _connect(path, "rw")
    connection.execute("PRAGMA query_only = on")
    connection.text_factory = _decode
    return connection


def keep_undestroyed(connection: sqlite3.Connection) -> None:
    """In a forked child: keep a connection of the parent from being destroyed.

    Its destruction would change the file's log, which the parent uses.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _connect(path: pathlib.Path, mode: str) -> sqlite3.Connection:
    if has_inherited_connection():
        raise InheritedConnection(path)
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )


def _set_up_writing(connection: sqlite3.Connection, synchronous: str) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = wal").fetchone()
    if mode != "wal":
        raise WriteAheadLogRefused(mode)
    for pragma in (f"synchronous = {synchronous}", *_WRITING):
        connection.execute(f"PRAGMA {pragma}").close()
    # The first read recovers the log after a crash. That can take long, so it is done
    # in this thread.
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _decode(value: bytes) -> t.Any:
    return value.decode("utf-8", "surrogateescape")
