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

from ..message import Message
from . import headers
from .topology import QueuePlan

#: Seconds after which a dead letter tries again to get into a full dead-letter queue.
PARKED_RETRY_SECONDS = 60.0


class Lane(enum.Enum):
    """The queues of a consumer: the main queue, the suspects and the dead letters."""

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


class Delivery:
    """One delivery of a message by the broker; acknowledged or forwarded once.

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
        """True if the delivery must not be settled any more."""
        return self.link.closed

    @property
    def identity(self) -> str | None:
        """Key that stays the same when the broker redelivers the message.

        The key is the message's id, or ``None`` for a message without an id. On Kafka,
        the key is the topic, partition and offset.
        """
        return self.message.id

    def try_start(self) -> bool:
        """Return true if a handler may start now, false to drop the delivery."""
        return not self.stale


@dataclass(frozen=True)
class Forward:
    """A message to copy to one of the consumer's queues, and then to acknowledge."""

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
        """Create a retry of this copy, which the full queue of dead letters refused.

        After a delay, the message is copied to the dead letters again, not handled.
        """
        marked = {**self.headers, headers.PARKED: True}
        return Forward(self.delivery, Lane.MAIN, marked, delay=PARKED_RETRY_SECONDS)


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
        """True while the link waits for its broker to come back, in order to go on.

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
        """Acknowledge deliveries; the caller passes none that is stale.

        :raises BrokerError: if the connection is lost.
        """

    @abc.abstractmethod
    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        """Copy each message to its lane, and acknowledge it once the copy is stored.

        :returns: For each message ``None``, or the reason why its copy was not stored.
        """

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        """Deliver a message again after a delay; its current delivery becomes stale.

        Supported only if :attr:`keeps_order` is true.

        :param attempt: The number of the next attempt.
        :param delay: Seconds.
        """
        raise NotImplementedError

    def exceed_prefetch(self, more: int) -> None:
        """Raise the link's prefetch by ``more``, to make up for postponed messages."""
        return

    def keep_alive(self) -> None:
        """Send a heartbeat or renew leases, and check that the broker is alive.

        :raises BrokerError: if the connection must be given up.
        """
        return

    @abc.abstractmethod
    def pause(self) -> None:
        """Stop fetching, but keep fetched messages; :meth:`read` may go on blocking."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give deliveries back to the broker before :meth:`close`, for other workers.

        The deliveries count as settled then. Called only after :meth:`pause`.

        :raises BrokerError: if the connection is lost.
        """
        return

    @abc.abstractmethod
    def close(self) -> None:
        """Give back all unsettled messages and wake :meth:`read`; never raise."""
