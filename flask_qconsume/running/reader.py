"""Read deliveries from one link, in a greenlet that does nothing else."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import gevent

from ..broker.link import Delivery
from ..broker.link import Link
from .event import Event

#: How many deliveries may be held beyond the prefetch: all are held in memory.
_MAX_EXTRA = 1_000


class Reader:
    """Reader of one link, which reads while the prefetch has room.

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
        self._unsettled: set[Delivery] = set()
        self._extra = 0
        self._room = Event()
        self._quiet = False
        #: How many deliveries it has read.
        self.received = 0

    @property
    def unsettled(self) -> list[Delivery]:
        """The deliveries that are not settled yet."""
        return list(self._unsettled)

    def run(self) -> None:
        """Read until :meth:`quiet` or the end of the link.

        :raises BrokerError: if the link fails.
        """
        while not self.link.closed:
            room = self._prefetch + self._extra - len(self._unsettled)
            if room <= 0 and not self.link.pushes:
                self._wait_for_room()
                continue
            if self._quiet and not self.link.pushes:
                return
            self._take(self.link.read(room))
            if self.link.pushes:
                # Let handlers begin first: a read that finds nothing takes longer.
                gevent.sleep(0)

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        self.received += len(deliveries)
        self._unsettled.update(deliveries)
        self._receive(deliveries)

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Forget settled deliveries, which makes room for more."""
        self._unsettled.difference_update(deliveries)
        self._room.set()

    def exceed_prefetch(self, extra: int) -> None:
        """Allow a number of deliveries beyond the prefetch, up to a maximum."""
        self._extra = min(extra, _MAX_EXTRA)
        self.link.exceed_prefetch(self._extra)
        self._room.set()

    def quiet(self) -> None:
        """Fetch no more. A pushing link is read on, to keep the connection alive."""
        self._quiet = True
        self._room.set()
        self.link.pause()

    def wake(self) -> None:
        """Let a reader that waits for room notice that its link is closed."""
        self._room.set()

    def _wait_for_room(self) -> None:
        if self._quiet:
            self.link.pause()
        self._room.clear()
        self._room.wait()
