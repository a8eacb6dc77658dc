"""One arrival of a message, and where it is to go next. No I/O."""

from __future__ import annotations

import enum
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass

from ..message import Message
from . import headers

if t.TYPE_CHECKING:
    from .base import Link


#: Seconds after which a dead letter tries again to get into its queue.
PARKED_FOR = 60.0


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

    def begin(self) -> bool:
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

    def parked(self) -> Forward:
        """A dead letter that its queue refuses, as a retry that is not handled."""
        marked = {**self.headers, headers.PARKED: True}
        return Forward(self.delivery, Lane.MAIN, marked, delay=PARKED_FOR)
