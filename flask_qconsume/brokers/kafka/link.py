"""A consumer of one queue, or of its suspects, as a member of a Kafka consumer group.

A delivery is stale once its partition is no longer assigned to this consumer, even if
the link itself still works.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker.headers import PREVIOUS_ATTEMPT
from ...broker.headers import read_text
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
from .client.partition import ReadyRecord
from .client.terms import ConsumerTerms

logger = get_logger("flask_qconsume.brokers.kafka")

#: Seconds that a read waits for messages.
_READ_TIMEOUT_SECONDS = 10.0
#: Seconds that a close waits for the client; and that the ack of a suspect, or of a
#: message that has become a suspect, waits for its commit.
_COMMIT_TIMEOUT_SECONDS = 4.0

#: Publishes copies of messages; returns ``None`` or the error for each.
Forwarder = Callable[[Sequence[Forward]], list[Exception | None]]
#: Converts a record to a message.
MessageReader = Callable[[ReadyRecord], Message]


class KafkaDelivery(Delivery):
    """A delivered record; it is stale once this consumer has lost its partition."""

    __slots__ = ("returned",)

    link: KafkaLink
    tag: ReadyRecord

    def __init__(self, link: KafkaLink, record: ReadyRecord, message: Message) -> None:
        # The base's method is not called, because this runs for each record.
        self.link = link
        self.tag = record
        self.message = message
        self.settled = False
        #: Whether the record was given back to the link.
        self.returned = False

    @property
    def stale(self) -> bool:
        return self.link.closed or self.returned or self.tag.partition.gone

    @property
    def identity(self) -> str:
        return self.tag.place

    def try_start(self) -> bool:
        if self.stale:
            return False
        if self.tag.partition.leaving:
            self.link.release([self])
            return False
        return True


class KafkaLink(Link):
    """Consumes a queue, or its suspects, as a member of a Kafka consumer group.

    :param config: librdkafka's settings, the group's id among them.
    :param topics: Topics, and patterns that begin with ``^``.
    :param read_message: Converts a record to a message.
    :param forwarder: Publishes copies of messages for retries, suspects and dead
        letters.
    :param refresh: Lists topics in the background, if the last list is old or the
        argument is true.
    :param look: Lists topics now, and tells all links of the process about changes.
    :param declared: The topics that are created when a link is opened.
    :param is_wanted: Returns whether the topic of suspects holds any record. The link
        joins its group once this is true; :meth:`wake` makes the link ask again.
    """

    pushes = False
    #: Another member of the group may have the partitions that hold messages.
    may_starve = True

    def __init__(
        self,
        plan: QueuePlan,
        lane: Lane,
        *,
        config: Mapping[str, t.Any],
        topics: Sequence[str],
        terms: ConsumerTerms,
        read_message: MessageReader,
        forwarder: Forwarder,
        refresh: Callable[[bool], None] = lambda at_once: None,
        look: Callable[[], object] = lambda: None,
        declared: Collection[str] = (),
        is_wanted: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(plan, lane)
        self.keeps_order = terms.ordering != "none"
        self._read_message = read_message
        self._forwarder = forwarder
        self._refresh = refresh
        self._look = look
        self._declared = declared
        #: Topics that the link reads by their full names, and that were deleted.
        self.missing: frozenset[str] = frozenset()
        self._paused = False
        self._consumer = KafkaConsumer(config, topics, terms)
        self._is_wanted = is_wanted
        if is_wanted is None:
            self._consumer.start()

    @property
    def interrupted(self) -> bool:
        return self._consumer.is_away or bool(self.missing)

    def read(
        self, room: int, wait: float = _READ_TIMEOUT_SECONDS
    ) -> Sequence[Delivery]:
        if self.closed or not self._ensure_started(wait):
            return []
        consumer, read_message = self._consumer, self._read_message
        if consumer.pop_misses_topic():
            self._refresh(True)
        records = [] if self._paused else consumer.take(room)
        if not records:
            consumer.wait(wait)
            records = [] if self._paused or self.closed else consumer.take(room)
        return [KafkaDelivery(self, record, read_message(record)) for record in records]

    def exceed_prefetch(self, more: int) -> None:
        self._consumer.exceed_prefetch(more)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        records = [delivery.tag for delivery in deliveries]
        self._consumer.settle(records)
        if self.lane is Lane.SUSPECTS:
            # The next suspect may kill the process; without a commit this one returns.
            self._consumer.await_committed(records, _COMMIT_TIMEOUT_SECONDS)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        errors = self._forwarder(forwards)
        arrived = [
            forward
            for forward, error in zip(forwards, errors, strict=True)
            if error is None
        ]
        self.ack([forward.delivery for forward in arrived])
        self._await_moved(arrived)
        return errors

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        t.cast(KafkaDelivery, delivery).returned = True
        previous = read_text(delivery.message.headers, PREVIOUS_ATTEMPT)
        self._consumer.postpone(delivery.tag, attempt, delay, previous)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            t.cast(KafkaDelivery, delivery).returned = True
        self._consumer.put_back([delivery.tag for delivery in deliveries])

    def keep_alive(self) -> None:
        if self.closed:
            return
        self._consumer.check()
        if self._consumer.is_away:
            return
        if self.missing.intersection(self._declared):
            self._check_missing()
        self._refresh(False)

    def await_joined(self, timeout: float) -> None:
        """Wait until this link has joined its consumer group.

        :raises BrokerError: if the broker refuses the member.
        """
        self._consumer.await_joined(timeout)

    def refresh_topics(self, topics: Mapping[str, int]) -> None:
        """Make the Kafka client list topics until it knows these topics.

        :param topics: The topics, with the number of partitions of each.
        """
        self._consumer.refresh_topics(topics)

    def set_missing(self, topics: Collection[str]) -> None:
        """Remember which of the link's topics do not exist, and log each one once."""
        missing = frozenset(topics)
        for name in missing - self.missing:
            logger.warning(
                "The topic '%s' of the queue '%s' was deleted", name, self.queue
            )
        self.missing = missing

    def wake(self) -> None:
        """Make a waiting call of :meth:`read` return."""
        self._consumer.wake()

    def pause(self) -> None:
        self._paused = True
        self._consumer.pause()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._consumer.close(_COMMIT_TIMEOUT_SECONDS)
        self.fetched_ids = {record.place for record in self._consumer.unused}

    def _ensure_started(self, wait: float) -> bool:
        """Start the consumer once it is wanted; return whether it runs."""
        if self._is_wanted is not None:
            if self._paused or not self._is_wanted():
                self._consumer.wait(wait)
                return False
            self._is_wanted = None
            self._consumer.start()
        return True

    def _await_moved(self, forwards: Sequence[Forward]) -> None:
        """After moving suspects, wait for the commit that marks originals as done.

        A suspect is a message that was in flight when a process died. Its copy may kill
        the process. Without the commit, the original would then be read again, and its
        deaths would be counted separately. (For the suspects' topic, :meth:`ack` has
        waited.)
        """
        if self.lane is not Lane.MAIN:
            return
        moved = [f.delivery.tag for f in forwards if f.lane is Lane.SUSPECTS]
        committed = self._consumer.await_committed(moved, _COMMIT_TIMEOUT_SECONDS)
        if not committed and not self.closed:
            logger.warning(
                "Kafka did not confirm within %g s that %s of '%s' moved to the"
                " suspects' lane; a suspect that kills its process may be started once"
                " more than 'QCONSUME_DELIVERY_LIMIT' says",
                _COMMIT_TIMEOUT_SECONDS,
                pluralize(len(moved), "suspect"),
                self.queue,
            )

    def _check_missing(self) -> None:
        """Raise an error if a needed topic was deleted; reconnecting creates it."""
        # The last list may come from a broker that does not know the topic yet.
        self._look()
        deleted = self.missing.intersection(self._declared)
        if deleted:
            raise BrokerUnavailable(
                f"The topic '{min(deleted)}' was deleted. It is declared again, as"
                " 'QCONSUME_DECLARE' says."
            )


def create_terms(
    plan: QueuePlan,
    lane: Lane,
    prefetch: int,
    *,
    delayed: Callable[[str], bool],
    due: Callable[[t.Any], float],
    grace: float,
) -> ConsumerTerms:
    """Return the settings with which a link consumes a queue or its suspects.

    For suspects (messages that were in flight when a process died), the queue's
    ordering is ignored, and no records are prepared ahead.

    :param delayed: Returns whether the records of a topic wait until they are due.
    :param due: Returns when a record is due.
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
