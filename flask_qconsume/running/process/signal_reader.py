"""Reads signals in any thread, even while the main thread is blocked.

Python runs signal handlers between two instructions of the main thread, and gevent runs
them from its event loop: neither happens while the main thread waits in C code. But
Python's own C function, which a signal calls at once, can write the signal's number to
a pipe. This module reads that pipe. Must not import gevent.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import typing as t
from collections.abc import Sequence
from types import FrameType

from ...native_threads import get_unpatched

#: Returned in place of a signal's number when the supervising process has ended.
PARENT_GONE = 0

#: Signals that are taken over even if they have a handler already.
_ALWAYS_TAKEN = (signal.SIGTERM, signal.SIGINT)

_active: SignalReader | None = None


class SignalReader:
    """Replaces the handlers of signals, and reads the signals from a pipe.

    Create one per process, in the main thread. SIGTERM and SIGINT are always read; the
    other signals are left alone if they already have a handler or are ignored, as
    SIGHUP is by ``nohup``. If the app sets a handler later, that signal is no longer
    read. In a forked child, the former handlers are restored.

    :param numbers: The signals to read.
    :param parent: The descriptor of a socket that is readable once the supervising
        process has ended, if there is one.
    """

    def __init__(
        self, numbers: Sequence[signal.Signals], parent: int | None = None
    ) -> None:
        global _active
        self.numbers = [
            n
            for n in numbers
            if n in _ALWAYS_TAKEN or signal.getsignal(n) is signal.SIG_DFL
        ]
        self._pipe, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = {n: signal.signal(n, _handle) for n in self.numbers}
        for number in self.numbers:  # Else calls of C libraries fail with EINTR.
            signal.siginterrupt(number, False)
        _set_wakeup_fd(self._writer)
        self._poll = get_unpatched("select", "poll")()
        self._poll.register(self._pipe, select.POLLIN)
        self._parent = parent
        if parent is not None:
            self._poll.register(parent, select.POLLIN)
        _active = self

    def read(self, timeout: float | None = None) -> int | None:
        """Wait for the next signal; call this in one thread only.

        :returns: The signal's number; :data:`PARENT_GONE`, once, if the supervising
            process has ended; ``None`` if the timeout is over, or if the app has set a
            handler of its own for the signal.
        """
        ready = self._poll.poll(None if timeout is None else timeout * 1000)
        descriptors = [descriptor for descriptor, _ in ready]
        if self._pipe in descriptors:
            number = os.read(self._pipe, 1)[0]
            return number if self._is_ours(number) else None
        if self._parent in descriptors:
            self._poll.unregister(self._parent)
            return PARENT_GONE
        return None

    def leave(self) -> None:
        """In a forked child: restore the signal handlers that were set before."""
        _set_wakeup_fd(-1)
        for number, handler in self._before.items():
            if self._is_ours(number):
                signal.signal(number, handler)
        for descriptor in (self._pipe, self._writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _is_ours(self, number: int) -> bool:
        # The app may have set a handler of its own since, for this signal or another.
        return signal.getsignal(number) is _handle

    def write(self, number: int) -> None:
        """Write a signal's number to the pipe, unless Python has done so already."""
        elsewhere = _set_wakeup_fd(self._writer)
        if elsewhere != self._writer:
            _set_wakeup_fd(elsewhere)
            with contextlib.suppress(OSError):
                os.write(self._writer, bytes([number]))


def _handle(number: int, frame: FrameType | None) -> None:
    """Handle a signal: make sure that its number is in the reader's pipe.

    :mod:`asyncio` can make Python write the numbers to another pipe.
    """
    if _active is not None:
        _active.write(number)


def _set_wakeup_fd(descriptor: int) -> int:
    set_wakeup_fd = get_unpatched("signal", "set_wakeup_fd")
    return t.cast(int, set_wakeup_fd(descriptor, warn_on_full_buffer=False))


# A forked child shares the pipe: a signal to the child, which 'multiprocessing.Pool'
# sends at its end, would count as a signal to the parent. So signals are blocked around
# a fork, until the child has left the pipe.


def _before_fork() -> None:
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _active.numbers)


def _after_fork() -> None:
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _active.numbers)


def _after_fork_in_child() -> None:
    global _active
    if _active is not None:
        _active.leave()
        _after_fork()
        _active = None


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork,
    after_in_child=_after_fork_in_child,
)
