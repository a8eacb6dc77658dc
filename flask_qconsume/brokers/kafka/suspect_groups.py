"""In which lanes there are suspects: their members join only then.

Most queues never have a suspect, and a member costs memory, threads, a connection, and
what it does at rest; so one client of the process asks for all lanes.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from collections.abc import Callable
from collections.abc import Collection

from ...errors import BrokerError
from . import naming
from .client.admin import Place
from .topics import recent

#: Seconds that the broker has to answer.
_TIMEOUT = 5.0


class Waiting(t.Protocol):
    """A lane that may have nobody in its group yet."""

    @property
    def closed(self) -> bool: ...

    def wake(self) -> None: ...


class SuspectGroups:
    """Wakes who waits for suspects.

    :param partitions: How many partitions a topic has, as far as is known.
    :param filled: Those of some partitions that hold any record; may block.
    """

    def __init__(
        self,
        partitions: Callable[[str], int],
        filled: Callable[[Collection[Place], float], set[Place]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._partitions = partitions
        self._filled = filled
        self._clock = clock
        #: Who waits, and of which queue the lane is.
        self._waiting: dict[Waiting, str] = {}
        self._in_use: set[str] = set()
        self._looking = False
        self._again = False
        self._looked = float("-inf")
        self._took = 0.0

    def add(self, queue: str, lane: Waiting) -> None:
        """Wake this one as soon as the queue's lane holds anything."""
        if queue not in self._in_use:
            self._waiting[lane] = queue
            self.look_again()

    def in_use(self, queue: str) -> bool:
        """Whether the queue's lane holds anything, or did."""
        return queue in self._in_use

    def tell(self, queue: str) -> None:
        """There is a suspect in the queue's lane."""
        self._in_use.add(queue)
        for lane in [each for each, its in list(self._waiting.items()) if its == queue]:
            self._waiting.pop(lane, None)
            lane.wake()

    def look_again(self) -> None:
        """Look in the background, whenever that was done last. Never waits."""
        self._again = True
        self.refresh()

    def refresh(self) -> None:
        """Look in the background, if nobody has for a while."""
        if not self._waiting or self._looking:
            return
        if self._again or not self._is_recent():
            self._looking = True
            # A greenlet, where there are some.
            threading.Thread(target=self._look_on, daemon=True).start()

    def _look_on(self) -> None:
        try:
            # Of those that come meanwhile it is not known yet.
            while self._again or not self._is_recent():
                self._again = False
                self._look()
        finally:
            self._looking = False

    def _is_recent(self) -> bool:
        return self._clock() - self._looked < recent(self._took)

    def _look(self) -> None:
        began = self._clock()
        places = self._places()
        with contextlib.suppress(BrokerError):  # At the next heartbeat, again.
            for place in self._filled(places.keys(), _TIMEOUT):
                self.tell(places[place])
        self._looked = self._clock()
        self._took = self._looked - began

    def _places(self) -> dict[Place, str]:
        """The partitions to be asked for, and the queues whose suspects they hold."""
        for lane in [each for each in list(self._waiting) if each.closed]:
            self._waiting.pop(lane, None)
        topics = {naming.suspects(q): q for q in list(self._waiting.values())}
        return {
            (topic, n): queue
            for topic, queue in topics.items()
            for n in range(self._partitions(topic))
        }
