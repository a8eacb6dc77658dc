"""Polling on behalf of readers that are blocked in Redis.

A link's reader waits in Redis for new messages, for seconds at a time. Messages that
become due, that are given back, or that have another priority do not end its wait. One
greenlet or thread per process polls for them once a second, for all links in one round
trip: polling for fifty queues takes hardly longer than for one.
"""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ...background_thread import BackgroundThread
from ...errors import BrokerError
from ...logs import get_logger
from .scripts import Call

logger = get_logger("flask_qconsume.brokers.redis")

#: Seconds between two polls, so also the longest delay until a message is noticed.
POLL_INTERVAL = 1.0


class BlockedReader(t.Protocol):
    """A reader of one queue, which may be blocked in Redis until a message arrives."""

    queue: str

    def wake(self) -> None:
        """Make the reader look for messages now."""

    def create_poll_call(self) -> Call | None:
        """Return a script that looks for messages, if the reader's wait is long."""

    def note_poll_answer(self, answer: t.Any) -> None:
        """Wake the reader if the poll's script has found messages."""


class BlockedReaderPoller:
    """Wakes blocked readers when there are messages that Redis does not wake them for.

    A greenlet or thread polls as long as there are readers.

    :param run: Function that runs scripts in one round trip. The answer of a script
        that fails is the error.
    :param interval: Seconds between two polls.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Call]], Sequence[t.Any]],
        interval: float = POLL_INTERVAL,
    ) -> None:
        self._run = run
        self._interval = interval
        self._links: dict[BlockedReader, None] = {}
        self._lock = threading.Lock()
        self._empty = threading.Event()
        self._is_running = False

    def add(self, link: BlockedReader) -> None:
        with self._lock:
            self._links[link] = None
            self._empty.clear()
            if not self._is_running:
                BackgroundThread(self._poll_repeatedly).start()

    def discard(self, link: BlockedReader) -> None:
        with self._lock:
            self._links.pop(link, None)
            if not self._links:
                self._empty.set()

    def poll(self) -> None:
        """Run the scripts of all blocked readers, and give each reader its answer."""
        asked = [
            (link, call)
            for link in list(self._links)
            if (call := link.create_poll_call())
        ]
        try:
            answers = self._run([call for _, call in asked]) if asked else ()
        except BrokerError:
            return  # The blocked links notice the outage themselves.
        for (link, _), answer in zip(asked, answers, strict=True):
            if not isinstance(answer, Exception):
                link.note_poll_answer(answer)

    def _poll_repeatedly(self) -> None:
        with self._lock:
            if self._is_running:
                return  # A second reader was added before this thread ran.
            self._is_running = True
        while not self._is_over():
            try:
                if not self._empty.wait(self._interval):
                    self.poll()
            except BaseException:
                # Code that kills every greenlet it finds must not end this one:
                # nothing would start another.
                logger.exception("Polling for blocked readers was interrupted")

    def _is_over(self) -> bool:
        with self._lock:
            if not self._links:
                self._is_running = False
            return not self._links
