"""Reads deliveries from one broker connection, in a greenlet of its own."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import gevent

from ..broker.link import Delivery
from ..broker.link import Link
from .event import Event

#: Largest number of deliveries beyond the prefetch limit, since all are in memory.
_MAX_EXTRA = 1_000


class Reader:
    """Reads deliveries from one link, as long as fewer than ``prefetch`` are unsettled.

    :param link: A broker connection for one queue.
    :param prefetch: The largest number of unsettled deliveries.
    :param receive: Called with the deliveries of each read; must neither wait nor
        raise.
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
        #: How many deliveries this reader has read so far.
        self.received = 0

    @property
    def unsettled(self) -> list[Delivery]:
        """The deliveries that are not settled yet."""
        return list(self._unsettled)

    def run(self) -> None:
        """Read until the link is closed or :meth:`quiet` is called.

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
                # Let handlers start before the next read: a read that finds nothing
                # takes longer.
                gevent.sleep(0)

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        self.received += len(deliveries)
        self._unsettled.update(deliveries)
        self._receive(deliveries)

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Count ``deliveries`` as settled, so that more deliveries can be read."""
        self._unsettled.difference_update(deliveries)
        self._room.set()

    def exceed_prefetch(self, extra: int) -> None:
        """Allow ``extra`` unsettled deliveries beyond the prefetch, up to a maximum."""
        self._extra = min(extra, _MAX_EXTRA)
        self.link.exceed_prefetch(self._extra)
        self._room.set()

    def quiet(self) -> None:
        """Stop fetching messages.

        If the broker pushes messages, reading goes on, to keep the connection alive.
        """
        self._quiet = True
        self._room.set()
        self.link.pause()

    def wake(self) -> None:
        """Wake :meth:`run` after its link was closed."""
        self._room.set()

    def _wait_for_room(self) -> None:
        if self._quiet:
            self.link.pause()
        self._room.clear()
        self._room.wait()
