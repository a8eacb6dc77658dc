"""What the watch needs of the operating system, whatever gevent has patched.

What watches the hub must run while the hub does not. Must not import gevent: the
process that supervises others is not patched, and uses this as well.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
import typing as t
from collections.abc import Callable

from ..transports.native import Latch
from ..transports.native import NativeThread
from ..transports.native import original

#: How many frames of a stack are shown.
_FRAMES = 12

#: Seconds that the last words of a process may take.
_LAST = 0.5


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


def apart_within(
    timeout: float, name: str, function: Callable[..., t.Any], *args: t.Any
) -> bool:
    """Do it apart, and wait; whether it ended within ``timeout`` seconds."""
    ended = Latch()

    def run() -> None:
        try:
            function(*args)
        finally:
            ended.open()

    apart(name, run)
    return ended.wait(timeout)


def log_last(log: Callable[..., object], text: str) -> None:
    """Log before the process ends; what blocks may hold the log's locks.

    Without those it goes to the standard error stream. Waits for a second at the most.
    """

    def say() -> None:
        log("%s", text)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()

    if not apart_within(_LAST, "log", say):
        apart_within(_LAST, "log", os.write, 2, f"{text}\n".encode())


def stack_of(thread: int) -> str:
    """The stack of a thread, innermost call last."""
    frame = sys._current_frames().get(thread)
    stack = traceback.format_stack(frame)[-_FRAMES:] if frame else ["  unknown"]
    return "".join(stack).rstrip()
