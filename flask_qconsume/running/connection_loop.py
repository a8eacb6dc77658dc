"""Keep a subscription connected: open a link, read it, and replace it when lost.

A link is never reopened: everything that belonged to the lost one is stale.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import gevent

from ..broker.link import Delivery
from ..broker.link import Link
from ..logs import get_logger
from .backoff import Backoff
from .event import Event
from .greenlets import ProtectedGreenlet
from .reader import Reader
from .redeliveries import RedeliveryMemory
from .subscription_context import SubscriptionContext

logger = get_logger("flask_qconsume.subscription")

#: Seconds after which a connection counts as a good one, even if it read nothing. Its
#: loss then starts the delays between attempts afresh.
_GOOD_AFTER_SECONDS = 5.0

#: Seconds to wait for a greenlet that has nothing left to wait for.
_JOIN_SECONDS = 5.0


class ConnectionLoop:
    """The connection of one subscription, which is replaced whenever it is lost.

    :param receive: Given deliveries as they come; must neither wait nor raise.
    :param memory: Told the messages that were unsettled when their link was lost.
    :param before_beat: Called before each heartbeat of the link.
    """

    def __init__(
        self,
        context: SubscriptionContext,
        receive: Callable[[Sequence[Delivery]], None],
        memory: RedeliveryMemory,
        before_beat: Callable[[], None],
    ) -> None:
        #: Set while the link is open and read.
        self.consuming = Event()
        #: The reader of the present link; ``None`` while there is no link.
        self.reader: Reader | None = None
        self._context = context
        self._worker = context.worker
        self._name = context.name
        self._receive = receive
        self._memory = memory
        self._before_beat = before_beat
        self._quiet = False
        #: Set when the present link, or the present pause, is to end.
        self._over = Event()
        self._greenlet: ProtectedGreenlet | None = None

    @property
    def connected(self) -> bool:
        """True if the link is read, and the broker is reachable."""
        reader = self.reader
        interrupted = reader is not None and reader.link.interrupted
        return self.consuming.is_set() and not interrupted

    @property
    def is_running(self) -> bool:
        """True if the greenlet that keeps the connection runs."""
        return self._greenlet is not None and not self._greenlet.dead

    @property
    def unsettled(self) -> list[Delivery]:
        """The deliveries of the present link that are not settled yet."""
        return [] if self.reader is None else self.reader.unsettled

    def start(self) -> None:
        """Connect in the background, and try until it succeeds."""
        self._greenlet = ProtectedGreenlet.spawn(self._run)

    def quiet(self, unstarted: Sequence[Delivery]) -> None:
        """Fetch no more, and give deliveries back at once, before :meth:`close`."""
        self._quiet = True
        reader = self.reader
        if reader is None:
            self._over.set()
            return
        try:
            reader.quiet()
            if fresh := [delivery for delivery in unstarted if not delivery.stale]:
                reader.link.release(fresh)
        except Exception as error:
            self.lose(reader.link, error)

    def close(self) -> None:
        """Close the link, which gives back the deliveries that are not settled."""
        self._over.set()
        if self._greenlet is not None:
            self._greenlet.join(_JOIN_SECONDS)

    def lose(self, link: Link, error: BaseException) -> None:
        """Give up a link that failed, so that its deliveries become stale."""
        reader = self.reader
        if reader is None or reader.link is not link or self._over.is_set():
            return
        text = f"lost the connection to the queue '{link.queue}', connecting again"
        self._worker.outages.log_failure(self._name, text, error)
        self._over.set()

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Make room for more: these deliveries need no more care."""
        if self.reader is not None:
            self.reader.release(deliveries)

    def exceed_prefetch(self, count: int) -> None:
        """Let a number of deliveries be read beyond the prefetch."""
        if self.reader is not None:
            self.reader.exceed_prefetch(count)

    # -- in its greenlet --------------------------------------------------------------

    def _run(self) -> None:
        backoff = Backoff()
        while not self._quiet:
            try:
                self._consume_once(backoff)
            except gevent.GreenletExit:
                raise
            except BaseException:
                # A bug, or an exception that other code threw into this greenlet.
                logger.exception("%s: consuming was cut off, it goes on", self._name)
                gevent.sleep(backoff.next())

    def _consume_once(self, backoff: Backoff) -> None:
        """Connect, and consume until the connection is lost."""
        link = self._connect(backoff)
        if link is None:
            return
        if self._tend(link):
            backoff.reset()
        if not self._quiet:
            self._pause(backoff, backoff.next())

    def _connect(self, backoff: Backoff) -> Link | None:
        plan, lane = self._context.plan, self._context.lane
        try:
            return self._worker.broker.connect(plan, lane, self._context.prefetch)
        except Exception as error:
            text = f"not connected to the queue '{plan.name}', trying again"
            self._worker.outages.log_failure(self._name, text, error)
            self._pause(backoff, backoff.next())
            return None

    def _pause(self, backoff: Backoff, delay: float) -> None:
        """Wait before the next connection, unless the subscription is closed."""
        self._over.clear()
        if not self._quiet and self._worker.probe.pause(self._over, delay):
            # Earlier failures say nothing about a broker that has just come back.
            backoff.reset()

    def _tend(self, link: Link) -> bool:
        """Keep one link alive until it is lost or the subscription is closed.

        :returns: Whether the link was a good one: it read messages, or lasted.
        """
        if self._quiet:
            link.close()
            return False
        began = time.monotonic()
        self._over.clear()
        reader = self.reader = Reader(link, self._context.prefetch, self._receive)
        reading = ProtectedGreenlet.spawn(self._read, reader)
        self.consuming.set()
        logger.info("%s: consuming the queue '%s'", self._name, link.queue)
        self._worker.outages.log_recovery(self._name)
        try:
            self._beat(link)
        finally:
            self.consuming.clear()
            self.reader = None
            self._memory.add_unsettled(each.identity for each in reader.unsettled)
            link.close()
            reader.wake()
            self._memory.add_unsettled(link.fetched_ids)
            reading.join(_JOIN_SECONDS)
        return reader.received > 0 or time.monotonic() - began > _GOOD_AFTER_SECONDS

    def _beat(self, link: Link) -> None:
        while not self._over.wait(link.keep_alive_interval):
            # After a stall of the hub the reader goes first: data that it has not read
            # yet would look like a silent broker.
            gevent.sleep(0)
            self._before_beat()
            try:
                link.keep_alive()
            except Exception as error:
                self.lose(link, error)
                return

    def _read(self, reader: Reader) -> None:
        try:
            reader.run()
        except BaseException as error:
            self.lose(reader.link, error)
