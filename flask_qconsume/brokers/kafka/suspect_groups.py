"""Finds the queues that have suspects: only their groups of suspects are joined.

A suspect is a message that was in flight when a process died. Most queues never have
one, and each member of a group needs memory, threads, a connection and processor time.
So one client of the process checks the suspects' topics of all queues.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from collections.abc import Callable
from collections.abc import Collection

from ...background_thread import BackgroundThread
from ...errors import BrokerError
from . import naming
from .client.partition import PartitionId
from .topics import look_interval

#: Seconds that the broker has to answer.
_ANSWER_TIMEOUT_SECONDS = 5.0


class SuspectsLink(t.Protocol):
    """A link to a queue of suspects, which waits until there are suspects."""

    @property
    def closed(self) -> bool: ...

    def wake(self) -> None: ...


class SuspectGroups:
    """Wakes links to queues of suspects once the queue has a message.

    A suspect is a message that was in flight when a process died.

    :param partitions: Returns how many partitions a topic has; 0 if that is unknown.
    :param find_filled: Returns those of the partitions that hold records; may block.
    """

    def __init__(
        self,
        partitions: Callable[[str], int],
        find_filled: Callable[[Collection[PartitionId], float], set[PartitionId]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._partitions = partitions
        self._find_filled = find_filled
        self._clock = clock
        #: Links that have not joined, and their queues.
        self._waiting: dict[SuspectsLink, str] = {}
        self._in_use: set[str] = set()
        #: Held during a look.
        self._looking = threading.Lock()
        self._must_look = False
        self._last_suspects_look = float("-inf")
        self._suspects_look_seconds = 0.0

    def add(self, queue: str, link: SuspectsLink) -> None:
        """Wake a link as soon as its queue of suspects has a message."""
        if queue not in self._in_use:
            self._waiting[link] = queue
            self.look_now()

    def is_in_use(self, queue: str) -> bool:
        """Return whether a queue of suspects is known to have had a message."""
        return queue in self._in_use

    def set_in_use(self, queue: str) -> None:
        """Remember that a queue of suspects has a message, and wake its links."""
        self._in_use.add(queue)
        for link in [link for link, its in list(self._waiting.items()) if its == queue]:
            self._waiting.pop(link, None)
            link.wake()

    def look_now(self) -> None:
        """Look for suspects at once, in a background thread."""
        self._must_look = True
        self.look_if_due()

    def look_if_due(self) -> None:
        """Look for suspects in a background thread, if that is due."""
        if not self._waiting or self._looking.locked():
            return
        if self._must_look or not self._is_recent():
            BackgroundThread(self._look_until_recent).start()

    def _look_until_recent(self) -> None:
        if not self._looking.acquire(blocking=False):
            return
        try:
            # Links that are added during a look need another look.
            while self._must_look or not self._is_recent():
                self._must_look = False
                self._look()
        finally:
            self._looking.release()

    def _is_recent(self) -> bool:
        return self._clock() - self._last_suspects_look < look_interval(
            self._suspects_look_seconds
        )

    def _look(self) -> None:
        began = self._clock()
        queues = self._queues_by_partition()
        with contextlib.suppress(BrokerError):  # The next heartbeat looks again.
            for partition in self._find_filled(queues.keys(), _ANSWER_TIMEOUT_SECONDS):
                self.set_in_use(queues[partition])
        self._last_suspects_look = self._clock()
        self._suspects_look_seconds = self._last_suspects_look - began

    def _queues_by_partition(self) -> dict[PartitionId, str]:
        """Return the partitions to look into, and the queue of each."""
        for link in [
            waiting_link for waiting_link in list(self._waiting) if waiting_link.closed
        ]:
            self._waiting.pop(link, None)
        topics = {naming.suspects_topic(q): q for q in list(self._waiting.values())}
        return {
            (topic, n): queue
            for topic, queue in topics.items()
            for n in range(self._partitions(topic))
        }
