"""Announcements of new messages, by LISTEN and NOTIFY.

A transaction that notifies holds a lock of the whole server while it commits. So an
announcement is a transaction of its own, and the announcements of many publishes are
sent together.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from collections.abc import Collection

import psycopg

from ....background_thread import BackgroundThread
from ....errors import BrokerError
from ....first_use import ForkGuard
from ....logs import get_logger
from ..database import Channel
from ..database import WakeReaders
from .connection import PostgresConnection

logger = get_logger("flask_qconsume.brokers.sql")

#: The name in LISTEN and NOTIFY. Other programs may also notify, with a queue's name
#: as the text, or without a text, which means all queues.
CHANNEL = "qconsume"

#: Seconds between two announcements of one process.
_MIN_PAUSE_SECONDS = 0.005
#: Seconds until a lost connection for listening is replaced.
_RECONNECT_PAUSE_SECONDS = 1.0
#: PostgreSQL refuses a text of 8,000 bytes or more.
_MAX_PAYLOAD_BYTES = 7_900
#: Seconds for sending the last announcement of a process.
_LAST_ANNOUNCEMENT_SECONDS = 1.0

#: Function that sends a notification's text.
Notify = Callable[[str], object]


def encode_payload(sender: str, queues: Collection[str]) -> str:
    """Return the text of an announcement: its sender, and a line for each queue.

    >>> encode_payload("a1", ["billing", "stock"])
    'a1\\nbilling\\nstock'
    """
    text = "\n".join([sender, *queues])
    # An announcement without queues means all queues.
    return text if len(text.encode()) <= _MAX_PAYLOAD_BYTES else f"{sender}\n"


def decode_payload(text: str) -> tuple[str, set[str] | None]:
    """Return the sender and the queues of an announcement; ``None`` for all queues.

    >>> decode_payload("a1\\nbilling"), decode_payload("billing"), decode_payload("")
    (('a1', {'billing'}), ('', {'billing'}), ('', None))
    """
    sender, line_break, names = text.partition("\n")
    if not line_break:
        sender, names = "", sender
    return sender, set(names.split("\n")) if names else None


class Announcer:
    """Sends announcements in a thread: the first at once, the next ones together."""

    def __init__(self, sender: str, notify: Notify) -> None:
        self._sender = sender
        self._notify = notify
        self._guard = ForkGuard()
        self._queues: set[str] = set()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: BackgroundThread | None = None

    def announce(self, queues: Collection[str]) -> None:
        """Announce queues soon."""
        with self._lock:
            self._queues.update(queues)
        self._changed.set()
        if self._thread is None and not self._closing.is_set():
            self._start()

    def close(self) -> None:
        """Send the last announcement, for a second at most, and end the thread."""
        self._closing.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(_LAST_ANNOUNCEMENT_SECONDS)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = BackgroundThread(self._run)
                self._thread.start()

    def _run(self) -> None:
        while self._queues or not self._closing.is_set():
            self._changed.wait()
            self._guard.block_if_forked()
            self._changed.clear()
            self._send()
            self._closing.wait(_MIN_PAUSE_SECONDS)

    def _send(self) -> None:
        with self._lock:
            queues, self._queues = self._queues, set()
        try:
            if queues:
                self._notify(encode_payload(self._sender, sorted(queues)))
        except BrokerError:
            return  # The readers look once a second without an announcement.
        except Exception:
            logger.exception("New messages could not be announced")


class NotificationListener:
    """Listens on a connection of its own, and replaces it when it is lost.

    The thread reads at once, since PostgreSQL keeps each announcement until all
    listeners have read it.
    """

    def __init__(
        self,
        sender: str,
        connect: Callable[[], PostgresConnection],
        wake_readers: WakeReaders,
    ) -> None:
        self._sender = sender
        self._connect = connect
        self._wake_readers = wake_readers
        self._guard = ForkGuard()
        self._closing = threading.Event()
        self._connection: PostgresConnection | None = None
        self._thread = BackgroundThread(self._run)
        self._started = False

    def start(self) -> None:
        self._started = True
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and close the connection."""
        self._closing.set()
        connection = self._connection
        if connection is not None:
            connection.interrupt()
        if self._started:
            self._thread.join(_LAST_ANNOUNCEMENT_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen_once()
            except (psycopg.Error, BrokerError):
                pass  # The links get the same error, and report it.
            except Exception:
                logger.exception("Listening for new messages failed")
            self._guard.block_if_forked()
            self._closing.wait(_RECONNECT_PAUSE_SECONDS)

    def _listen_once(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            self._connection = connection
            if self._closing.is_set():
                return
            connection.deadline = float("inf")
            connection.execute(f"LISTEN {CHANNEL}")
            # Announcements may have been missed until now.
            self._wake_readers(None)
            for notification in connection.notifies():
                sender, queues = decode_payload(notification.payload)
                if sender != self._sender:
                    self._wake_readers(queues)


class NotifyChannel(Channel):
    """Announces by NOTIFY, and listens once this process reads a queue."""

    def __init__(
        self,
        notify: Notify,
        connect: Callable[[], PostgresConnection],
        wake_readers: WakeReaders,
    ) -> None:
        # By this text, a process recognizes its own announcements.
        sender = uuid.uuid4().hex[:12]
        self._announcer = Announcer(sender, notify)
        self._listener = NotificationListener(sender, connect, wake_readers)

    def start(self) -> None:
        self._listener.start()

    def announce(self, queues: Collection[str]) -> None:
        self._announcer.announce(queues)

    def close(self) -> None:
        self._announcer.close()
        self._listener.close()
