"""Data that a consumer's native thread and gevent's thread exchange, without locks.

In a process that gevent has patched, locks, events and loggers belong to gevent's
thread. So the native thread logs nothing itself, and wakes gevent's thread by a socket.
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
    """Data of one consumer that two threads exchange without locks.

    :param notifier: Wakes gevent's thread.
    """

    def __init__(self, notifier: ThreadNotifier) -> None:
        self._notifier = notifier

        #: Written by gevent's thread: records that are done or given back unstarted,
        #: and notes to be committed.
        self.settled: deque[Sequence[ReadyRecord]] = deque()
        self.released: deque[Sequence[ReadyRecord]] = deque()
        self.notes: deque[tuple[ReadyRecord, RecordNote]] = deque()
        #: Written by gevent's thread: hand out no more records; leave the group.
        self.is_paused = False
        self.is_stopping = False
        #: Written by gevent's thread: how many records beyond the prefetch to hand
        #: out, in place of records that it cannot settle now.
        self.extra_room = 0

        #: Written by the native thread: records that may be handed out, lost partitions
        #: (gevent's thread forgets their records), and lines to log with their levels.
        self.ready: deque[list[ReadyRecord]] = deque()
        self.gone: deque[AssignedPartition] = deque()
        self.log_lines: deque[tuple[int, str]] = deque(maxlen=_MAX_LOG_LINES)
        #: Written by the native thread: the client is connected and has subscribed.
        self.is_subscribed = False
        #: Written by the native thread: the group has assigned partitions, maybe none.
        self.has_joined = False
        #: Written by the native thread: it waits until the group lets it leave.
        self.is_leaving = False
        #: Set by the native thread if a topic is missing, reset by gevent's.
        self.misses_topic = False
        #: Written by the native thread: the error that ended it.
        self.error: BrokerError | None = None
        #: Written by the native thread: its last sign of life (``time.monotonic()``).
        self.last_seen = time.monotonic()
        #: Written by the native thread: number of records that were settled too late,
        #: after their partition was lost.
        self.stale_count = 0

    def notify(self) -> None:
        self._notifier.notify()

    def fail(self, error: t.Any) -> None:
        """Store the error that ends the native thread; the first one counts."""
        if self.error is None:
            is_translated = isinstance(error, BrokerError)
            self.error = error if is_translated else translate_error(error)
            self.notify()

    def log(self, level: int, text: str) -> None:
        self.log_lines.append((level, text))
        self.notify()


class ClientLogger:
    """Collects the lines that the Kafka client logs, to be logged later.

    All lines get the level DEBUG, because the client reports errors separately too.
    """

    def __init__(self, lines: deque[tuple[int, str]]) -> None:
        self._lines = lines

    def log(self, level: int, text: str, *values: t.Any) -> None:
        self._lines.append((logging.DEBUG, text % values))
