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
