"""What the watch needs of the operating system, whatever gevent has patched.

What watches the hub must run while the hub does not. Must not import gevent: the
process that supervises others is not patched, and uses this as well.
"""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable

from ..transports.native import NativeThread
from ..transports.native import original


def this_thread() -> int:
    """What ``sys._current_frames`` calls the thread that asks."""
    return t.cast(int, original("_thread", "get_ident")())


def apart(name: str, function: Callable[..., t.Any], *args: t.Any) -> None:
    """Do something that may hang, such as logging, in a thread that may do so too."""

    def run() -> None:
        try:
            function(*args)
        finally:
            # Whoever logs in a thread that 'threading' did not start gets an entry
            # there, for ever.
            entries: dict[int, t.Any] = vars(threading)["_active"]
            entries.pop(threading.get_ident(), None)

    NativeThread(run, name).start()


class Latch:
    """A native thread waits for it, with a time limit; anybody opens it, once."""

    def __init__(self) -> None:
        self._lock = original("_thread", "allocate_lock")()
        self._lock.acquire()
        self.is_open = False

    def open(self) -> None:
        """Wake whoever waits, now or later. Never blocks."""
        if not self.is_open:
            self.is_open = True
            self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait for so long at the most; whether it is open."""
        if self._lock.acquire(timeout=timeout):
            self._lock.release()
        return self.is_open
