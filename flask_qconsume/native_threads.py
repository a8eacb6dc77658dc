"""Threads of the operating system, even in a process that gevent has patched.

A client library in C blocks the thread that calls it, so each such client gets a native
thread. Greenlets wait for that thread by a socket pair: reading it is cooperative in a
patched process and plain blocking elsewhere. This module imports no gevent, because the
unpatched supervisor process uses it as well.

Code in a native thread must not touch locks, events or loggers that greenlets also use:
gevent has patched those, and they belong to the hub's thread.
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

#: How many of a stack's innermost frames are shown.
_MAX_FRAMES = 12

#: Seconds that writing the last log line of a process may take.
_LAST_LOG_TIMEOUT = 0.5


def get_unpatched(module: str, name: str) -> t.Any:
    """Return a function of the standard library as it was before gevent patched it.

    >>> get_unpatched("math", "floor")(1.5)
    1
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


def get_hub_id() -> int:
    """Return a number for the event loop of this thread; 0 without gevent.

    A socket of gevent belongs to the event loop that opened it; a plain socket serves
    all threads.
    """
    patched = socket.socket.__module__.startswith("gevent")
    return threading.get_native_id() if patched else 0


class ThreadNotifier:
    """Wakes a waiting greenlet or thread, from any other thread.

    Several notifications before a wait count as one, and none is missed. Store the data
    for the waiter first, then call :meth:`notify`.
    """

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._notified = False
        self._waiting = False
        self._closed = False

    def notify(self) -> None:
        """Wake the waiter; if there is none, the next wait returns at once."""
        if self._notified:
            return
        self._notified = True
        with contextlib.suppress(OSError):
            self._sender.send(b"\0")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a notification; return false after ``timeout`` seconds.

        Only one greenlet or thread may wait at a time. Closing notifies, too.
        """
        if self._closed:
            return True
        self._waiting = True
        try:
            self._receiver.settimeout(timeout)
            self._receiver.recv(1024)
        except (TimeoutError, BlockingIOError):
            return False
        finally:
            self._waiting = False
            if self._closed:
                self._receiver.close()
        # From here on 'notify' writes a byte again. A 'notify' between the byte and
        # this line wrote none, but its data is stored before the caller looks for it.
        self._notified = False
        return True

    def close(self) -> None:
        """Wake the waiter a last time, and close the sockets."""
        self._closed = True
        self._sender.close()
        if not self._waiting:
            self._receiver.close()


class Latch:
    """Lets native threads wait until another thread opens the latch."""

    def __init__(self) -> None:
        self._lock = get_unpatched("_thread", "allocate_lock")()
        self._lock.acquire()
        self.is_open = False

    def open(self) -> None:
        """Wake all waiting threads; later calls of :meth:`wait` return at once."""
        if not self.is_open:
            self.is_open = True
            self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; return whether the latch is open."""
        if self._lock.acquire(timeout=timeout):
            self._lock.release()
        return self.is_open


class NativeThread:
    """A daemon thread of the operating system, even if gevent has patched threads.

    :param target: Runs in the thread; an exception it raises is kept in :attr:`error`.
    :param name: The name that log lines show.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        self.name = name
        #: The exception that ended the thread, if any.
        self.error: BaseException | None = None
        self.alive = False
        self._target = target
        self._notifiers: list[ThreadNotifier] = []

    def __repr__(self) -> str:
        state = "running" if self.alive else "not running"
        return f"<{type(self).__name__} {self.name!r}, {state}>"

    def start(self) -> NativeThread:
        """Start the thread. Call this once."""
        self.alive = True
        get_unpatched("_thread", "start_new_thread")(self._run, ())
        return self

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end; return false after ``timeout`` seconds.

        Other greenlets run meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        notifier = ThreadNotifier()
        self._notifiers.append(notifier)
        try:
            while self.alive:
                seconds_left = None if deadline is None else deadline - time.monotonic()
                if seconds_left is not None and seconds_left <= 0:
                    return False
                notifier.wait(seconds_left)
            return True
        finally:
            self._notifiers.remove(notifier)
            notifier.close()

    def _run(self) -> None:
        # 'threading' does the same, for debuggers and coverage.
        sys.settrace(threading.gettrace())
        self._run_target()

    def _run_target(self) -> None:
        try:
            self._target()
        except BaseException as error:
            self.error = error
        finally:
            self.alive = False
            for notifier in list(self._notifiers):
                notifier.notify()


def get_thread_id() -> int:
    """Return the number of this thread in the mapping ``sys._current_frames()``."""
    return t.cast(int, get_unpatched("_thread", "get_ident")())


def run_in_thread(name: str, function: Callable[..., t.Any], *args: t.Any) -> None:
    """Run a function in a native thread, without waiting for it: it may hang."""

    def run() -> None:
        try:
            function(*args)
        finally:
            # Logging in a thread that 'threading' did not start leaves an entry in
            # 'threading._active' for ever.
            entries: dict[int, t.Any] = vars(threading)["_active"]
            entries.pop(threading.get_ident(), None)

    NativeThread(run, name).start()


def run_in_thread_within(
    timeout: float, name: str, function: Callable[..., t.Any], *args: t.Any
) -> bool:
    """Run a function in a native thread; return false if it takes too long.

    :param timeout: Seconds.
    """
    ended = Latch()

    def run() -> None:
        try:
            function(*args)
        finally:
            ended.open()

    run_in_thread(name, run)
    return ended.wait(timeout)


def log_before_exit(log: Callable[..., object], text: str) -> None:
    """Log a line shortly before the process ends; wait for a second at most.

    A blocked greenlet may hold the locks of the log's handlers; the line then goes to
    the standard error stream.
    """

    def write() -> None:
        log("%s", text)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()

    if not run_in_thread_within(_LAST_LOG_TIMEOUT, "log", write):
        run_in_thread_within(
            _LAST_LOG_TIMEOUT, "log", os.write, 2, f"{text}\n".encode()
        )


def format_stack(thread: int) -> str:
    """Return the stack of a thread as text, the innermost call last."""
    frame = sys._current_frames().get(thread)
    stack = traceback.format_stack(frame)[-_MAX_FRAMES:] if frame else ["  unknown"]
    return "".join(stack).rstrip()
