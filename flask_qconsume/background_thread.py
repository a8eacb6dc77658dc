"""Threads that run beside their starter; greenlets, if gevent has patched threads."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable


class BackgroundThread:
    """A daemon thread whose start is not waited for.

    :class:`threading.Thread` waits until its thread runs. Under gevent that thread is a
    greenlet. If memory is so short that the greenlet cannot start, its starter would
    wait for ever, with the locks that it holds.

    :param target: Runs in the thread.
    """

    def __init__(self, target: Callable[[], object]) -> None:
        self._target = target
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread. Call this once.

        :raises RuntimeError: if Python starts no more threads, because it shuts down.
        """
        # Looked up at each call: gevent patches this module, too.
        _thread.start_new_thread(self._run, ())

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end; return whether it came."""
        return self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            self._target()
        finally:
            self._ended.set()
