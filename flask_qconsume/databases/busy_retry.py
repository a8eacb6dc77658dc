"""Waits for a lock of SQLite in Python, where other greenlets can run meanwhile.

SQLite's own wait (``busy_timeout``) is a sleep in C, which stops all greenlets: also
the one that has the lock, so that the wait cannot succeed. Standard library only.
"""

from __future__ import annotations

import random
import sqlite3
import time
import typing as t
from collections.abc import Callable

T = t.TypeVar("T")

#: Seconds of the first and of the longest pause between two attempts.
_SHORTEST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.005

#: SQLite's primary result code for a lock of another connection.
_BUSY = 5
#: The same for a shared cache, where it is an extended code.
_LOCKED_SHAREDCACHE = 6 | 1 << 8
#: Other connections have written since this transaction has read. Waiting cannot help.
_BUSY_SNAPSHOT = _BUSY | 2 << 8


def retry_while_busy(
    call: Callable[[], T],
    timeout: float,
    sleep: Callable[[float], object] | None = None,
) -> T:
    """Return ``call()``; while it fails by a lock, pause and call it again.

    :param timeout: Seconds after which the lock's error is raised.
    :param sleep: Pauses for some seconds; by default :func:`time.sleep`.
    :raises sqlite3.Error: as ``call()``.
    """
    deadline = time.monotonic() + timeout
    pause = _SHORTEST_PAUSE
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            is_temporary = is_locked(error) and not is_outdated(error)
            if not is_temporary or time.monotonic() >= deadline:
                raise
        # Processes that were blocked together do not come back together.
        (sleep or time.sleep)(random.uniform(pause / 2, pause))
        pause = min(2 * pause, _LONGEST_PAUSE)


def is_locked(error: BaseException) -> bool:
    """Return whether an error is about a lock of another connection."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = _get_code(error)
    if code is None:
        return "is locked" in str(error)
    return code == _LOCKED_SHAREDCACHE or code & 0xFF == _BUSY


def is_outdated(error: BaseException) -> bool:
    """Return whether a write is refused since others came after what was read."""
    return _get_code(error) == _BUSY_SNAPSHOT


def _get_code(error: BaseException) -> int | None:
    """Return SQLite's extended result code, which Python has since version 3.11."""
    return t.cast(int | None, getattr(error, "sqlite_errorcode", None))
