"""One arrival of a message, and where it is to go next. No I/O."""

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

#: Seconds after which a dead letter tries again to get into its queue.
PARKED_RETRY_SECONDS = 60.0


class Lane(enum.Enum):
    """The three places of a consumer's messages."""

    #: Its queue.
    MAIN = "main"
    #: ``<queue>.suspects``: what may have killed a process, handled one by one.
    SUSPECTS = "suspects"
    #: ``<queue>.dead``: its dead letters.
    DEAD = "dead"


class Delivery:
    """The broker's handle on one arrival of a message; settled once.

    It belongs to one *generation* of a connection, its :attr:`link`. Once that is
    closed the delivery is stale: the broker gives the message out again, and the tag
    may by then stand for somebody else's message, so it must never be sent.
    """

    __slots__ = ("link", "message", "settled", "tag")

    def __init__(self, link: Link, tag: t.Any, message: Message) -> None:
        self.link = link
        #: What the broker calls it; means nothing to anybody else.
        self.tag = tag
        self.message = message
        self.settled = False

    @property
    def stale(self) -> bool:
        """Whether the connection that it came by is gone."""
        return self.link.closed

    @property
    def identity(self) -> str | None:
        """What tells that a delivery is one of the same message, as long as it lies
        where it does; ``None`` if nothing tells."""
        return self.message.id

    def try_start(self) -> bool:
        """Whether a handler may begin with it now; if not, it is out of our hands."""
        return not self.stale


@dataclass(frozen=True)
class Forward:
    """A delivery that goes elsewhere: confirmed there, then acknowledged here."""

    delivery: Delivery
    #: Where to, beside the queue the delivery came from (``delivery.link.queue``).
    lane: Lane
    #: All headers of the copy (not only the changed ones).
    headers: Mapping[str, t.Any]
    #: Seconds that the broker holds it back. Only for :attr:`Lane.MAIN`.
    delay: float = 0.0
    #: Seconds that the broker keeps it. Only for :attr:`Lane.DEAD`.
    expires: float | None = None

    def as_parked(self) -> Forward:
        """A dead letter that its queue refuses, as a retry that is not handled."""
        marked = {**self.headers, headers.PARKED: True}
        return Forward(self.delivery, Lane.MAIN, marked, delay=PARKED_RETRY_SECONDS)


class Link(abc.ABC):
    """One connection of one subscription: one generation of deliveries.

    One greenlet reads, one settles, one beats; they may do so at the same time. It is
    never reopened: after :meth:`close`, or any error, a new one is made.
    """

    #: Whether the broker pushes up to the prefetch by itself. A pulling link is only
    #: read while there is room for more.
    pushes: t.ClassVar[bool]

    #: Whether messages may wait for long although it is well: others come first (a
    #: single active consumer, partitions that somebody else has).
    may_starve: bool = False

    #: Whether what belongs together comes one by one (a consumer's ``ordering``). Then
    #: the link holds retries, and what is behind them, by :meth:`postpone`; and
    #: suspects come alone, their deaths counted by the link.
    keeps_order: bool = False

    def __init__(self, plan: QueuePlan, lane: Lane) -> None:
        self.plan = plan
        self.lane = lane
        #: The name of the queue that is read.
        self.queue = plan.name if lane is Lane.MAIN else plan.suspects
        #: Once it is closed, what it had fetched and not given out, by identity, if the
        #: broker may mark that as delivered.
        self.fetched_ids: t.AbstractSet[str] = frozenset()
        #: Set by :meth:`close` and as soon as the connection is known to be lost.
        self.closed = False

    @property
    def interrupted(self) -> bool:
        """Whether the broker is away, and the link goes on by itself once it is back.

        Others are lost then.
        """
        return False

    #: Seconds between two calls of :meth:`keep_alive`.
    keep_alive_interval: float = 10.0

    @abc.abstractmethod
    def read(self, room: int) -> Sequence[Delivery]:
        """Wait for messages and return them; none at all if it was woken for nothing.

        :param room: How many more the subscription wants; a pulling link returns no
            more than that.
        :raises BrokerError: if the connection is lost or the broker cancelled us.
        """

    @abc.abstractmethod
    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these are done with. Never called with stale ones.

        :raises BrokerError: if the connection is lost.
        """

    @abc.abstractmethod
    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        """Put each message where it goes, and acknowledge those that arrived there.

        :returns: For each ``None``, or why it did not arrive (it is not acknowledged).
        """

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        """Take a delivery back, and give it out again as that attempt after a delay.

        It is stale from then on, to be neither handled nor settled. Only for a link
        that :attr:`keeps_order`.
        """
        raise NotImplementedError

    def exceed_prefetch(self, more: int) -> None:
        """Let so many more than the prefetch be held, for those that are put off."""
        return

    def keep_alive(self) -> None:
        """Show the broker that we live (heartbeat, leases), and look whether it does.

        :raises BrokerError: if the connection must be given up.
        """
        return

    @abc.abstractmethod
    def pause(self) -> None:
        """Fetch no more. What was fetched stays; :meth:`read` may go on blocking."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back now, before :meth:`close`, so that others get them sooner.

        They are settled by that. Called only after :meth:`pause`.

        :raises BrokerError: if the connection is lost.
        """
        return

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what is not settled, wake :meth:`read`; raises nothing."""
