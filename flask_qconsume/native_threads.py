"""Native threads beside a hub: threads of the system even where gevent has patched all.

A client in C blocks the thread that calls it, so it gets one of its own; and whoever
waits for that thread waits for a socket, which is cooperative in a patched process and
plain in any other one. Knows no broker, and does not import gevent:
the process that supervises workers is not patched, and uses this as well.

What runs in such a thread must use no lock, event or logger that greenlets use too:
those are gevent's, and belong to the hub's thread.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import threading
import time
import traceback
import typing as t
from collections.abc import Callable

#: How many frames of a stack are shown.
_FRAMES = 12

#: Seconds that the last words of a process may take.
_LAST = 0.5


def original(module: str, name: str) -> t.Any:
    """A function as the standard library has it, whether gevent has patched it or not.

    >>> original("math", "floor")(1.5)
    1
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


def hub() -> int:
    """Where one waits: a number for each hub, or one for all threads without any.

    A socket of gevent's belongs to the thread that opened it; others serve all.
    """
    patched = socket.socket.__module__.startswith("gevent")
    return threading.get_native_id() if patched else 0


class Bell:
    """Wakes one greenlet or thread from any other thread.

    Rung once or many times, it wakes once; rung before the wait, it is not missed. What
    the ringing tells about has to be there before it rings.
    """

    def __init__(self) -> None:
        self._ear, self._clapper = socket.socketpair()
        self._clapper.setblocking(False)
        self._rung = False
        self._waiting = False
        self._closed = False

    def ring(self) -> None:
        """Wake whoever waits, or who waits next. Never blocks."""
        if self._rung:
            return
        self._rung = True
        with contextlib.suppress(OSError):
            self._clapper.send(b"\0")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the bell; whether it rang within ``timeout`` seconds.

        For one at a time. A bell that is closed rings.
        """
        if self._closed:
            return True
        self._waiting = True
        try:
            self._ear.settimeout(timeout)
            self._ear.recv(1024)
        except (TimeoutError, BlockingIOError):
            return False
        finally:
            self._waiting = False
            if self._closed:
                self._ear.close()
        # Whoever rings from here on writes again; whoever has rung since the byte came
        # did so before the caller looks at what it was rung for.
        self._rung = False
        return True

    def close(self) -> None:
        """Ring for the last time."""
        self._closed = True
        self._clapper.close()
        if not self._waiting:
            self._ear.close()


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


class NativeThread:
    """A thread of the system that nobody has to wait for.

    It ends with the process at the latest, as daemons do.

    :param target: Runs in the thread; what it raises is kept in :attr:`error`.
    :param name: For people.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        self.name = name
        #: What ended it, if it was an error.
        self.error: BaseException | None = None
        self.alive = False
        self._target = target
        self._bells: list[Bell] = []

    def __repr__(self) -> str:
        state = "running" if self.alive else "not running"
        return f"<{type(self).__name__} {self.name!r}, {state}>"

    def start(self) -> NativeThread:
        """Start it, once."""
        self.alive = True
        original("_thread", "start_new_thread")(self._run, ())
        return self

    def join(self, timeout: float | None = None) -> bool:
        """Wait cooperatively for its end; whether it came in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        bell = Bell()
        self._bells.append(bell)
        try:
            while self.alive:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                bell.wait(left)
            return True
        finally:
            self._bells.remove(bell)
            bell.close()

    def _run(self) -> None:
        # As threading's own threads do, for debuggers and for measuring coverage.
        sys.settrace(threading.gettrace())
        self._live()

    def _live(self) -> None:
        try:
            self._target()
        except BaseException as error:
            self.error = error
        finally:
            self.alive = False
            for bell in list(self._bells):
                bell.ring()


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
