"""Closes the connections of this process to SQLite before it forks.

SQLite keeps the locks of a file in memory, for all connections of a process together.
A forked child inherits that memory, but not the locks. So a connection that the child
opens would take no lock: when the parent closes the file, SQLite deletes the log into
which the child still writes, and confirmed messages are lost. Without an open
connection, nothing is inherited.
https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_
"""

from __future__ import annotations

import abc
import os
import time
import weakref

#: Seconds that a fork waits at most for connections in use.
_LONGEST_DELAY_SECONDS = 2.0


class ForkClosed(abc.ABC):
    """Connections that are closed before a fork; the next use opens new ones."""

    def __init__(self) -> None:
        _all.add(self)

    @abc.abstractmethod
    def close_before_fork(self, deadline: float) -> bool:
        """Close all connections, and keep other threads from opening new ones.

        :param deadline: By :func:`time.monotonic`.
        :returns: False if a connection was in use until the deadline.
        """

    @abc.abstractmethod
    def continue_after_fork(self) -> None:
        """Let threads open connections again."""


_all: weakref.WeakSet[ForkClosed] = weakref.WeakSet()
_closed: list[ForkClosed] = []
_are_all_closed = True
#: Whether this process was forked while the parent had a connection in use.
_has_inherited = False


def has_inherited_connection() -> bool:
    """Return whether SQLite is unsafe here: a fork has copied a connection in use."""
    return _has_inherited


def _close_all() -> None:
    global _are_all_closed
    deadline = time.monotonic() + _LONGEST_DELAY_SECONDS
    _are_all_closed = True
    for each in list(_all):
        if each.close_before_fork(deadline):
            _closed.append(each)
        else:
            _are_all_closed = False


def _continue_all() -> None:
    while _closed:
        _closed.pop().continue_after_fork()


def _continue_in_child() -> None:
    global _has_inherited
    _has_inherited = _has_inherited or not _are_all_closed
    _continue_all()


os.register_at_fork(
    before=_close_all,
    after_in_parent=_continue_all,
    after_in_child=_continue_in_child,
)
