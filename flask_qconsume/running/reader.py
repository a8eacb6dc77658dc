"""Reading one link: the only greenlet that does, and it does nothing else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import gevent

from ..broker.link import Delivery
from ..broker.link import Link
from .event import Event

#: How far the prefetch may be exceeded: what is held is held in memory.
MOST_MORE = 1_000


class Reader:
    """Reads deliveries as long as there is room for them.

    :param link: Read until it is closed or fails.
    :param prefetch: How many unsettled deliveries there may be at once.
    :param receive: Given deliveries as they come; must neither wait nor raise.
    """

    def __init__(
        self,
        link: Link,
        prefetch: int,
        receive: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self.link = link
        self._prefetch = prefetch
        self._receive = receive
        self._held: set[Delivery] = set()
        self._more = 0
        self._room = Event()
        self._quiet = False
        #: How many deliveries it has read.
        self.received = 0

    @property
    def held(self) -> list[Delivery]:
        """The deliveries that are not settled yet."""
        return list(self._held)

    def run(self) -> None:
        """Read until :meth:`quiet` or the end of the link.

        :raises BrokerError: if the link fails.
        """
        while not self.link.closed:
            room = self._prefetch + self._more - len(self._held)
            if room <= 0 and not self.link.pushes:
                self._wait_for_room()
                continue
            if self._quiet and not self.link.pushes:
                return
            self._take(self.link.read(room))
            if self.link.pushes:
                # Nothing more may be there yet, and to find that out takes longer than
                # to begin with what is.
                gevent.sleep(0)

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        self.received += len(deliveries)
        self._held.update(deliveries)
        self._receive(deliveries)

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """These are settled: there is room for others."""
        self._held.difference_update(deliveries)
        self._room.set()

    def exceed_prefetch(self, more: int) -> None:
        """Read so many more than the prefetch, where the link does not push."""
        self._more = min(more, MOST_MORE)
        self.link.exceed_prefetch(self._more)
        self._room.set()

    def quiet(self) -> None:
        """Fetch no more. A pushing link is read on, to keep the connection alive."""
        self._quiet = True
        self._room.set()
        self.link.pause()

    def wake(self) -> None:
        """Have it notice that its link is closed, where it waits for room."""
        self._room.set()

    def _wait_for_room(self) -> None:
        if self._quiet:
            self.link.pause()
        self._room.clear()
        self._room.wait()
