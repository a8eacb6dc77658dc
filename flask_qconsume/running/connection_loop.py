"""Keeps a subscription connected: opens a link, reads it, and replaces a lost link.

A link is a connection for one queue. A lost link is never reopened, since its unsettled
deliveries are no longer valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import gevent

from ..broker.link import Delivery
from ..broker.link import Link
from ..handling.events import tell
from ..logs import get_logger
from .backoff import Backoff
from .event import Event
from .greenlets import ProtectedGreenlet
from .reader import Reader
from .redeliveries import RedeliveryMemory
from .subscription_context import SubscriptionContext

logger = get_logger("flask_qconsume.subscription")

#: Seconds after which a connection counts as good, even if it read nothing. After the
#: loss of a good one, the delays between attempts start with the shortest.
_GOOD_AFTER_SECONDS = 5.0

#: Seconds to wait for a greenlet that is about to end.
_JOIN_SECONDS = 5.0


class ConnectionLoop:
    """Keeps one subscription connected: replaces each link that fails.

    A link is a connection for one queue.

    :param receive: Called with the deliveries of each read; must neither wait nor
        raise.
    :param memory: Stores the messages that were unsettled when a link was lost.
    :param before_beat: Called before each heartbeat is sent.
    """

    def __init__(
        self,
        context: SubscriptionContext,
        receive: Callable[[Sequence[Delivery]], None],
        memory: RedeliveryMemory,
        before_beat: Callable[[], None],
    ) -> None:
        #: Set while the link is open and being read.
        self.consuming = Event()
        #: The reader of the current link; ``None`` while there is no link.
        self.reader: Reader | None = None
        self._context = context
        self._worker = context.worker
        self._events = context.worker.events
        self._name = context.name
        self._receive = receive
        self._memory = memory
        self._before_beat = before_beat
        self._quiet = False
        #: Set to end the current link or the current pause.
        self._over = Event()
        self._greenlet: ProtectedGreenlet | None = None

    @property
    def connected(self) -> bool:
        """True if the connection is open, and deliveries are being read from it."""
        reader = self.reader
        interrupted = reader is not None and reader.link.interrupted
        return self.consuming.is_set() and not interrupted

    @property
    def is_running(self) -> bool:
        """True if the greenlet that connects and reconnects is running."""
        return self._greenlet is not None and not self._greenlet.dead

    @property
    def unsettled(self) -> list[Delivery]:
        """The unsettled deliveries of the current connection."""
        return [] if self.reader is None else self.reader.unsettled

    def start(self) -> None:
        """Begin to connect in the background; failed attempts are repeated."""
        self._greenlet = ProtectedGreenlet.spawn(self._run)

    def quiet(self, unstarted: Sequence[Delivery]) -> None:
        """Stop fetching messages; return ``unstarted`` deliveries to the broker.

        An open connection stays open until :meth:`close`.
        """
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
        """Close the connection; unsettled deliveries go back to the broker."""
        self._over.set()
        if self._greenlet is not None:
            self._greenlet.join(_JOIN_SECONDS)

    def lose(self, link: Link, error: BaseException) -> None:
        """Replace a link that has failed; its deliveries become stale."""
        reader = self.reader
        if reader is None or reader.link is not link or self._over.is_set():
            return
        text = f"lost the connection to the queue '{link.queue}', connecting again"
        self._worker.outages.log_failure(self._name, text, error)
        self._over.set()
        self._tell_disconnected(error)

    def _tell_disconnected(self, error: BaseException) -> None:
        if self._events.disconnected:
            queue = self._context.queue
            tell(self._events.disconnected, self._name, queue, error)

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Count ``deliveries`` as settled, so that more messages can be fetched."""
        if self.reader is not None:
            self.reader.release(deliveries)

    def exceed_prefetch(self, count: int) -> None:
        """Allow ``count`` unsettled deliveries beyond the prefetch."""
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
            self._tell_disconnected(error)
            self._pause(backoff, backoff.next())
            return None

    def _pause(self, backoff: Backoff, delay: float) -> None:
        self._over.clear()
        if not self._quiet and self._worker.probe.pause(self._over, delay):
            # Earlier failures say nothing about a broker that has just come back.
            backoff.reset()

    def _tend(self, link: Link) -> bool:
        """Send heartbeats over one link, until the link is lost or closed.

        :returns: Whether the link worked: it brought messages, or lasted for a while.
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
        if self._events.connected:
            tell(self._events.connected, self._name, link.queue)
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
            # If gevent's event loop was blocked, let the reader run first: unread data
            # would look like a broker that sends no heartbeats.
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
