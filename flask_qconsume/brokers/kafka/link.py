"""One member of a consumer group as a link: reads a queue's topics or its suspects.

What becomes of records, and how that is committed, is the consumer's to know; here they
become deliveries. A delivery is stale as soon as its partition was taken away, however
well the link is.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.topology import QueuePlan
from ...errors import BrokerUnavailable
from ...logs import get_logger
from ...message import Message
from ...text import pluralize
from .client.consumer import KafkaConsumer
from .client.consumer_thread import ConsumerTerms
from .client.partition import ReadyRecord

logger = get_logger("flask_qconsume.brokers.kafka")

#: Seconds that a read waits at the most, and that a close waits for the client.
_WAIT = 10.0
_GRACE = 4.0

Forwarder = Callable[[Sequence[Forward]], list[Exception | None]]
#: Makes a message of an arrival.
Opener = Callable[[ReadyRecord], Message]


class KafkaDelivery(Delivery):
    """An arrival on its way; stale once its partition is gone, or it was put back."""

    __slots__ = ("returned",)

    link: KafkaLink
    tag: ReadyRecord

    def __init__(self, link: KafkaLink, arrival: ReadyRecord, message: Message) -> None:
        # As the base's, without calling it: this is done for every record.
        self.link = link
        self.tag = arrival
        self.message = message
        self.settled = False
        #: Whether its link has it back.
        self.returned = False

    @property
    def stale(self) -> bool:
        return self.link.closed or self.returned or self.tag.slot.gone

    @property
    def identity(self) -> str:
        return self.tag.place

    def try_start(self) -> bool:
        if self.stale:
            return False
        if self.tag.slot.leaving:
            self.link.release([self])
            return False
        return True


class KafkaLink(Link):
    """Reads topics as a member of a group.

    :param config: librdkafka's settings, the group's id among them.
    :param topics: Topics, and patterns that begin with ``^``.
    :param opened: Makes a message of a record that arrived.
    :param forwarder: Puts copies where they go; for each ``None``, or why it did not.
    :param refresh: Called now and then: has somebody look for new topics; at once, if
        that is asked for.
    :param look: Looks for topics now, and tells the links.
    :param declared: The topics that are created when a link is opened.
    :param wanted: Whether anything is there to be read, for who is to join no sooner;
        :meth:`wake` lets it look again.
    """

    pushes = False
    #: Another member of the group may have the partitions that are full.
    may_starve = True

    def __init__(
        self,
        plan: QueuePlan,
        lane: Lane,
        *,
        config: Mapping[str, t.Any],
        topics: Sequence[str],
        terms: ConsumerTerms,
        opened: Opener,
        forwarder: Forwarder,
        refresh: Callable[[bool], None] = lambda at_once: None,
        look: Callable[[], object] = lambda: None,
        declared: Collection[str] = (),
        wanted: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(plan, lane)
        self.keeps_order = terms.ordering != "none"
        self._opened = opened
        self._forwarder = forwarder
        self._refresh = refresh
        self._look = look
        self._declared = declared
        #: Topics that it reads by their names, and that were deleted meanwhile.
        self.missing: frozenset[str] = frozenset()
        self._paused = False
        self._consumer = KafkaConsumer(config, topics, terms)
        self._wanted = wanted
        if wanted is None:
            self._consumer.start()

    @property
    def interrupted(self) -> bool:
        return self._consumer.away or bool(self.missing)

    def read(self, room: int, wait: float = _WAIT) -> Sequence[Delivery]:
        if self.closed or not self._joined(wait):
            return []
        consumer, opened = self._consumer, self._opened
        if consumer.misses:
            self._refresh(True)
        found = [] if self._paused else consumer.take(room)
        if not found:
            consumer.wait(wait)
            found = [] if self._paused or self.closed else consumer.take(room)
        return [KafkaDelivery(self, arrival, opened(arrival)) for arrival in found]

    def exceed_prefetch(self, more: int) -> None:
        self._consumer.exceed_prefetch(more)

    def _joined(self, wait: float) -> bool:
        """Whether it is in its group, or on the way there; else, that is waited for."""
        if self._wanted is not None:
            if self._paused or not self._wanted():
                self._consumer.wait(wait)
                return False
            self._wanted = None
            self._consumer.start()
        return True

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        arrivals = [delivery.tag for delivery in deliveries]
        self._consumer.settle(arrivals)
        if self.lane is Lane.SUSPECTS:
            # The next one may kill the process, and what is done would come again.
            self._consumer.await_committed(arrivals, _GRACE)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        errors = self._forwarder(forwards)
        there = [
            forward
            for forward, error in zip(forwards, errors, strict=True)
            if error is None
        ]
        self.ack([forward.delivery for forward in there])
        self._await_moved(there)
        return errors

    def _await_moved(self, forwards: Sequence[Forward]) -> None:
        """Have suspects in their lane alone, as far as the broker knows, too.

        If one killed its process before that, it would be found in both places, and
        each of the two would be counted on its own. (What goes back to the lane is
        handed out by the same commit.)
        """
        if self.lane is not Lane.MAIN:
            return
        moved = [f.delivery.tag for f in forwards if f.lane is Lane.SUSPECTS]
        there = self._consumer.await_committed(moved, _GRACE)
        if not there and not self.closed:
            logger.warning(
                "Kafka did not take notice within %g s that %s of '%s' went to the"
                " lane; one that kills its process may be started once more",
                _GRACE,
                pluralize(len(moved), "suspect"),
                self.queue,
            )

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        t.cast(KafkaDelivery, delivery).returned = True
        self._consumer.postpone(delivery.tag, attempt, delay)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            t.cast(KafkaDelivery, delivery).returned = True
        self._consumer.put_back([delivery.tag for delivery in deliveries])

    def keep_alive(self) -> None:
        if self.closed:
            return
        self._consumer.check()
        if self._consumer.away:
            return
        if self.missing.intersection(self._declared):
            self._check_missing()
        self._refresh(False)

    def _check_missing(self) -> None:
        """Have a topic that was deleted declared again: opening a link does that."""
        self._look()  # The broker that was asked last may not have known of it yet.
        deleted = self.missing.intersection(self._declared)
        if deleted:
            raise BrokerUnavailable(
                f"The topic '{min(deleted)}' was deleted. It is declared again, as"
                " 'QCONSUME_DECLARE' says."
            )

    def await_joined(self, timeout: float) -> None:
        """Wait until it is a member of its group.

        :raises BrokerError: if the broker refuses that.
        """
        self._consumer.await_joined(timeout)

    def find(self, topics: Mapping[str, int]) -> None:
        """There are topics to be read that it may not know; so many partitions each."""
        self._consumer.find(topics)

    def miss(self, topics: Collection[str]) -> None:
        """These topics were deleted."""
        missing = frozenset(topics)
        for name in missing - self.missing:
            logger.warning(
                "The topic '%s' of the queue '%s' was deleted", name, self.queue
            )
        self.missing = missing

    def wake(self) -> None:
        """Let the reader look at once."""
        self._consumer.wake()

    def pause(self) -> None:
        self._paused = True
        self._consumer.pause()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._consumer.close(_GRACE)
        self.fetched_ids = {arrival.place for arrival in self._consumer.unused}


def create_terms(
    plan: QueuePlan,
    lane: Lane,
    prefetch: int,
    *,
    delayed: Callable[[str], bool],
    due: Callable[[t.Any], float],
    grace: float,
) -> ConsumerTerms:
    """How a lane is read: suspects strictly one by one, in no order.

    :param delayed: Whether a topic holds records back; :func:`due` tells until when.
    """
    main = lane is Lane.MAIN
    return ConsumerTerms(
        room=prefetch,
        ahead=main,
        ordering=plan.ordering if main else "none",
        delayed=delayed,
        due=due,
        grace=grace,
    )
