"""Threads for work in the background; greenlets, if gevent has patched threads."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable


class BackgroundThread:
    """A daemon thread that is started without waiting until it runs.

    :meth:`threading.Thread.start` waits until the new thread runs. Under gevent the
        thread is a greenlet. If the greenlet cannot start for lack of memory, the
        caller waits for ever, and keeps its locks.

    :param target: Runs in the thread.
    """

    def __init__(self, target: Callable[[], object]) -> None:
        self._target = target
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread. Call this once.

        :raises RuntimeError: if Python is shutting down, and starts no more threads.
        """
        # Looked up at each call: gevent patches this module, too.
        _thread.start_new_thread(self._run, ())

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; return false after ``timeout`` seconds."""
        return self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            self._target()
        finally:
            self._ended.set()
