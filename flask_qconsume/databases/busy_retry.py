"""Waits for a lock of SQLite in Python, where other greenlets can run meanwhile.

SQLite's own wait (``busy_timeout``) is a sleep in C, which stops all greenlets. If one
of these greenlets has the lock, the wait cannot succeed. Standard library only.
"""

from __future__ import annotations

import random
import sqlite3
import time
import typing as t
from collections.abc import Callable

T = t.TypeVar("T")

#: Seconds of the first and of the longest pause between two attempts.
_SHORTEST_PAUSE_SECONDS = 0.0005
_LONGEST_PAUSE_SECONDS = 0.005

#: SQLite's primary result code for a lock of another connection.
_BUSY = 5
#: The extended result code for a lock in a shared cache.
_LOCKED_SHAREDCACHE = 6 | 1 << 8
#: Another connection has written since this transaction read. Waiting cannot help.
_BUSY_SNAPSHOT = _BUSY | 2 << 8


def retry_while_busy(
    call: Callable[[], T],
    timeout: float,
    sleep: Callable[[float], object] | None = None,
) -> T:
    """Return ``call()``; while a lock makes the call fail, pause and repeat the call.

    :param timeout: Seconds after which the lock's error is raised.
    :param sleep: Pauses for some seconds; by default :func:`time.sleep`.
    :raises sqlite3.Error: as ``call()``.
    """
    deadline = time.monotonic() + timeout
    pause = _SHORTEST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            is_temporary = is_locked(error) and not is_outdated(error)
            if not is_temporary or time.monotonic() >= deadline:
                raise
        # A random pause, so that blocked processes do not try again at the same time.
        (sleep or time.sleep)(random.uniform(pause / 2, pause))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def is_locked(error: BaseException) -> bool:
    """Return whether an error is about a lock of another connection."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = _get_code(error)
    if code is None:
        return "is locked" in str(error)
    return code == _LOCKED_SHAREDCACHE or code & 0xFF == _BUSY


def is_outdated(error: BaseException) -> bool:
    """Return whether a write fails since another connection wrote after the read."""
    return _get_code(error) == _BUSY_SNAPSHOT


def _get_code(error: BaseException) -> int | None:
    """Return SQLite's extended result code, which Python has since version 3.11."""
    return t.cast(int | None, getattr(error, "sqlite_errorcode", None))
