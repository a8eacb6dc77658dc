"""Links and deliveries: a connection that consumes one queue, and its messages.

Each broker subclasses :class:`Link`. Its caller settles each delivery: acknowledges it,
or forwards its message to the queue (a retry), the suspects or the dead letters.
"""

from __future__ import annotations

import abc
import enum
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from ..errors import BrokerError
from ..message import Message
from . import headers
from .topology import QueuePlan

#: Seconds after which a dead letter tries again to get into a full dead-letter queue.
PARKED_RETRY_SECONDS = 60.0


class Lane(enum.Enum):
    """One of the three queues of a consumer: for messages, suspects or dead letters."""

    #: The consumer's queue.
    MAIN = "main"
    #: ``<queue>.suspects``: messages that may have killed a process, handled one by
    #: one.
    SUSPECTS = "suspects"
    #: ``<queue>.dead``: the consumer's dead letters.
    DEAD = "dead"

    def queue_of(self, plan: QueuePlan) -> str:
        """Return the name of a consumer's queue for this lane."""
        if self is Lane.MAIN:
            return plan.name
        return plan.suspects if self is Lane.SUSPECTS else plan.dead


class LeaseLost(BrokerError):
    """The lease of a message has ended, so another worker may have the message."""


class Delivery:
    """One delivery of a message by the broker, to be acknowledged or forwarded once.

    A delivery belongs to one connection, its :attr:`link`. When the link is closed, its
    deliveries are stale: the broker delivers the messages again, and may use the same
    tag for another message. So a stale delivery is never settled.
    """

    __slots__ = ("link", "message", "settled", "tag")

    def __init__(self, link: Link, tag: t.Any, message: Message) -> None:
        self.link = link
        #: The broker's own name of the delivery, for the link only.
        self.tag = tag
        self.message = message
        self.settled = False

    @property
    def stale(self) -> bool:
        """True if the delivery must not be settled, as its connection is closed."""
        return self.link.closed

    @property
    def identity(self) -> str | None:
        """Key that stays the same when the broker redelivers the message.

        The key is the message's id, or ``None`` for a message without an id. On Kafka,
        the key is the topic, partition and offset.
        """
        return self.message.id

    @property
    def may_be_known(self) -> bool:
        """True if this process may have had the message before, on a lost link."""
        return self.message.redelivered

    def try_start(self) -> bool:
        """Return true if a handler may start, false to skip the delivery."""
        return not self.stale


@dataclass(frozen=True)
class Forward:
    """A message to be copied to one of its consumer's queues, and then acknowledged."""

    delivery: Delivery
    #: The place that the copy goes to, one of the consumer's three.
    lane: Lane
    #: All headers of the copy (not only the changed ones).
    headers: Mapping[str, t.Any]
    #: Seconds for which the broker holds the copy back. Only for :attr:`Lane.MAIN`.
    delay: float = 0.0
    #: Seconds for which the broker keeps the copy. Only for :attr:`Lane.DEAD`.
    expires: float | None = None

    def as_parked(self) -> Forward:
        """Create a retry that keeps a dead letter while the dead-letter queue is full.

        After the delay of the retry, the message is not handled, but forwarded to the
        dead letters once more.
        """
        marked = {**self.headers, headers.PARKED: True}
        return Forward(self.delivery, Lane.MAIN, marked, delay=PARKED_RETRY_SECONDS)

    def with_simple_values(self) -> Forward:
        """Return a copy with only texts and numbers in its headers and properties.

        JSON may be unable to hold other values, and the message could then never be
        forwarded.
        """
        delivery, message = self.delivery, self.delivery.message
        simple_properties = {
            name: value
            for name, value in message.properties.items()
            if headers.is_simple(value)
        }
        simple = replace(message, properties=simple_properties)
        return replace(
            self,
            delivery=Delivery(delivery.link, delivery.tag, simple),
            headers=headers.keep_simple_values(self.headers),
        )


class Link(abc.ABC):
    """A connection that consumes one queue, for one consumer in one process.

    One greenlet reads, one settles, and one keeps the link alive, at the same time. A
    link is never reopened: after :meth:`close`, or any error, a new link is made.
    """

    #: True if the broker pushes messages up to the prefetch. A pulling link is only
    #: read while the subscription can take more messages.
    pushes: t.ClassVar[bool]

    #: True if a healthy link may get no messages for long although some wait: for
    #: example, another process is the queue's single active consumer.
    may_starve: bool = False

    #: True if the link keeps the order of messages (a consumer's ``ordering``). Then it
    #: holds back retries, and the messages behind them, by :meth:`postpone`; and it
    #: delivers suspects alone, and counts the crashes that they cause.
    keeps_order: bool = False

    #: Seconds between two calls of :meth:`keep_alive`.
    keep_alive_interval: float = 10.0

    def __init__(self, plan: QueuePlan, lane: Lane) -> None:
        self.plan = plan
        self.lane = lane
        #: The name of the queue that is read.
        self.queue = lane.queue_of(plan)
        #: After :meth:`close`: identities of messages that were fetched but not handed
        #: out, if the broker may mark these as redelivered.
        self.fetched_ids: t.AbstractSet[str] = frozenset()
        #: Set by :meth:`close`, and as soon as the connection is known to be lost.
        self.closed = False

    @property
    def interrupted(self) -> bool:
        """True while the link waits for a broker that is away, and is still usable.

        With most brokers, this is never true: a lost connection ends the link.
        """
        return False

    @abc.abstractmethod
    def read(self, room: int) -> Sequence[Delivery]:
        """Wait for messages and return them; the result may be empty.

        :param room: The number of messages that the caller can take. A link that
            :attr:`pushes` may return more.
        :raises BrokerError: if the connection is lost, or the broker cancelled the
            consumer.
        """

    @abc.abstractmethod
    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries, none of which is stale.

        :raises BrokerError: if the connection is lost.
        """

    @abc.abstractmethod
    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        """Copy each message to another queue; acknowledge the original afterwards.

        :returns: For each message ``None``, or the reason why its copy was not stored.
        """

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        """Give a message back, to be delivered again in its place after a delay.

        Supported only if :attr:`keeps_order` is true.

        :param attempt: The number of the next attempt.
        :param delay: Seconds.
        """
        raise NotImplementedError

    def exceed_prefetch(self, more: int) -> None:
        """Allow ``more`` messages beyond the prefetch, since some are postponed."""
        return

    def keep_alive(self) -> None:
        """Send a heartbeat or extend leases, and check that the broker answers.

        :raises BrokerError: if the connection must be given up.
        """
        return

    @abc.abstractmethod
    def pause(self) -> None:
        """Stop fetching messages, and keep those that were fetched."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give unhandled deliveries back to the broker, so that other workers get them.

        The deliveries count as settled afterwards. Call :meth:`pause` first.

        :raises BrokerError: if the connection is lost.
        """
        return

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection, which gives back unsettled messages; never raise."""
