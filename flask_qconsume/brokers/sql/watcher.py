"""Wakes readers whose queues have new or due messages."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection

from ...background_thread import BackgroundThread
from ...errors import BrokerError
from ...first_use import ForkGuard
from ...logs import get_logger
from . import statements
from .database import Channel
from .database import Database
from .database import Step

logger = get_logger("flask_qconsume.brokers.sql")

#: Seconds after a failed look until the next one.
_PAUSE_AFTER_ERROR_SECONDS = 1.0
#: Seconds between two looks, at least: a *look* is one query for all queues.
_MIN_PAUSE_SECONDS = 0.005
#: Seconds between an announcement of another process and the look for delayed
#: messages that follows it. Announcements in this time share the look.
_PAUSE_AFTER_ANNOUNCEMENT_SECONDS = 0.1
#: Seconds that :meth:`Watcher.join` waits for the thread.
_CLOSE_TIMEOUT_SECONDS = 3.0


class QueueWatch:
    """Lets the reader of one queue wait until there may be a message.

    Call :meth:`clear`, then look for messages, then :meth:`wait`.
    """

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._event = threading.Event()

    def clear(self) -> None:
        """Forget earlier notifications."""
        self._event.clear()

    def wait(self, timeout: float) -> None:
        """Wait for a notification, for ``timeout`` seconds at most."""
        self._event.wait(timeout)

    def notify(self) -> None:
        """End the current or the next wait."""
        self._event.set()


class Watcher:
    """Watches the queues that this process reads, in one thread for all of them.

    The thread makes delayed messages ready once they are due, and finds messages for
    which no announcement came.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = ForkGuard()
        self._watches: dict[QueueWatch, None] = {}
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._thread: BackgroundThread | None = None
        self._channel: Channel | None = None
        self._closed = False
        #: When a delayed message may be due, by :func:`time.monotonic`.
        self._next_due = 0.0

    def add(self, queue: str) -> QueueWatch:
        """Begin to watch a queue."""
        watch = QueueWatch(queue)
        channel = self._open_channel()
        with self._lock:
            self._watches[watch] = None
            is_first, self._thread = (
                self._thread is None,
                self._thread or self._create_thread(),
            )
        if is_first:
            channel.start()
            self._thread.start()
        self._look_within(0.0)
        return watch

    def discard(self, watch: QueueWatch) -> None:
        """Stop watching, and wake the reader."""
        with self._lock:
            self._watches.pop(watch, None)
        watch.notify()

    def announce(self, queues: Collection[str], delayed: bool = False) -> None:
        """Wake the readers of queues here and in other processes, after a commit.

        :param delayed: Whether some of the messages are not ready yet.
        """
        if delayed:
            self._look_within(0.0)
        self._notify(queues)
        # Without memory, threads or descriptors, readers find the messages by a look.
        with contextlib.suppress(OSError, RuntimeError):
            self._open_channel().announce(queues)

    def stop(self) -> None:
        """Wake all readers, and let the thread end."""
        self._closed = True
        self._changed.set()
        self._notify(None)
        if self._channel is not None:
            self._channel.close()

    def join(self) -> None:
        """Wait for the end of the thread, which may be in a call of the database."""
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_SECONDS)

    def _create_thread(self) -> BackgroundThread:
        return BackgroundThread(self._run)

    def _open_channel(self) -> Channel:
        channel = self._channel
        if channel is not None:
            return channel  # The lock would make each publish slower.
        with self._lock:
            if self._channel is None:
                self._channel = self._database.open_channel(self._wake_readers_and_look)
            return self._channel

    def _wake_readers_and_look(self, queues: Collection[str] | None) -> None:
        self._notify(queues)
        self._look_within(_PAUSE_AFTER_ANNOUNCEMENT_SECONDS)

    def _look_within(self, seconds: float) -> None:
        moment = time.monotonic() + seconds
        if moment < self._next_due:
            self._next_due = moment
            self._changed.set()

    def _notify(self, queues: Collection[str] | None) -> None:
        for watch in list(self._watches):
            if queues is None or watch.queue in queues:
                watch.notify()

    def _run(self) -> None:
        while not self._closed:
            pause = self._look_safely()
            self._changed.wait(max(pause, _MIN_PAUSE_SECONDS))
            self._guard.block_if_forked()
            self._changed.clear()

    def _look_safely(self) -> float:
        """Look at all queues if it is time; return the seconds until the next look."""
        try:
            channel = self._open_channel()
            is_due = time.monotonic() >= self._next_due
            if self._watches and (is_due or channel.has_changes()):
                self._look()
            return min(channel.poll_interval, self._next_due - time.monotonic())
        except BrokerError:
            pass  # The links get the same error, and are replaced.
        except Exception:
            # If the thread ended, nothing would start another thread.
            logger.exception("Looking for new messages failed")
        self._next_due = 0.0
        return _PAUSE_AFTER_ERROR_SECONDS

    def _look(self) -> None:
        # An announcement during the look sets an earlier time again.
        self._next_due = float("inf")
        queues = sorted({watch.queue for watch in self._watches})
        found = self._find_ready(queues)
        if any(due_in is not None and due_in <= 0 for _, _, due_in in found):
            # Makes up to 1,000 messages ready. The next look follows soon.
            self._database.write([Step(statements.MAKE_READY, {"queues": queues})])
            found = self._find_ready(queues)
        self._notify({queue for queue, is_ready, _ in found if is_ready})
        pauses = [due_in for _, _, due_in in found if due_in is not None]
        moment = time.monotonic() + min(pauses, default=float("inf"))
        self._next_due = min(self._next_due, moment)

    def _find_ready(self, queues: list[str]) -> list[tuple[str, bool, float | None]]:
        rows = self._database.read(statements.FIND_READY, {"queues": queues})
        return [(row[0], bool(row[1]), row[2]) for row in rows]
