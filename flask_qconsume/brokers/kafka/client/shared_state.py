"""What the hub and the native thread of a consumer exchange: deques, flags, no locks.

Locks, events and loggers are gevent's in a patched process, and belong to the hub's
thread. So the native thread logs nothing itself, and wakes the hub by a socket.
"""

from __future__ import annotations

import logging
import time
import typing as t
from collections import deque
from collections.abc import Sequence

from ....errors import BrokerError
from ....native_threads import ThreadNotifier
from .errors import translate_error
from .offsets import RecordNote
from .partition import AssignedPartition
from .partition import ReadyRecord

#: Lines that wait to be logged; older ones are dropped.
_MAX_LOG_LINES = 1_000


class SharedState:
    """Mailboxes and flags of one consumer; each is written on one side only.

    :param notifier: Wakes the hub.
    """

    def __init__(self, notifier: ThreadNotifier) -> None:
        self._notifier = notifier

        #: Written by the hub: records that are done, records that come back unstarted,
        #: and notes to be committed.
        self.settled: deque[Sequence[ReadyRecord]] = deque()
        self.released: deque[Sequence[ReadyRecord]] = deque()
        self.notes: deque[tuple[ReadyRecord, RecordNote]] = deque()
        #: Written by the hub: hand out no more records; leave the group.
        self.is_paused = False
        self.is_stopping = False
        #: Written by the hub: how many more records it wants than the terms say, for
        #: records that it cannot settle now.
        self.extra_room = 0

        #: Written by the thread: records that may be handed out, partitions that are
        #: gone (the hub must forget their records), and lines to be logged with their
        #: levels.
        self.ready: deque[list[ReadyRecord]] = deque()
        self.gone: deque[AssignedPartition] = deque()
        self.log_lines: deque[tuple[int, str]] = deque(maxlen=_MAX_LOG_LINES)
        #: Written by the thread: the client is connected and has subscribed.
        self.is_subscribed = False
        #: Written by the thread: the group told which partitions are ours, maybe none.
        self.has_joined = False
        #: Written by the thread: it waits until the group lets it leave.
        self.is_leaving = False
        #: Set by the thread if a topic is missing, reset by the hub.
        self.misses_topic = False
        #: Written by the thread: the error that ended it.
        self.error: BrokerError | None = None
        #: Written by the thread: when it was last seen alive (``time.monotonic()``).
        self.last_seen = time.monotonic()
        #: Written by the thread: number of records settled after their partition was
        #: gone.
        self.stale_count = 0

    def notify(self) -> None:
        """Wake the hub."""
        self._notifier.notify()

    def fail(self, error: t.Any) -> None:
        """End the thread, and tell the hub why; the first error counts."""
        if self.error is None:
            known = isinstance(error, BrokerError)
            self.error = error if known else translate_error(error)
            self.notify()

    def log(self, level: int, text: str) -> None:
        """Let the hub log a line."""
        self.log_lines.append((level, text))
        self.notify()


class ClientLogger:
    """Takes the lines that the client logs, in place of a logger.

    All become debug lines, since the client also reports important ones as errors.
    """

    def __init__(self, lines: deque[tuple[int, str]]) -> None:
        self._lines = lines

    def log(self, level: int, text: str, *values: t.Any) -> None:
        """Keep a line for the hub."""
        self._lines.append((logging.DEBUG, text % values))
