"""Messages, received and to be sent. Knows no broker, no Flask and no gevent."""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

_NEVER = threading.Event()


class Tombstone:
    """The class of :data:`TOMBSTONE`, the body of a Kafka record without a value."""

    def __repr__(self) -> str:
        return "TOMBSTONE"


#: Published in place of a body, on Kafka: it removes the message's key.
TOMBSTONE = Tombstone()


@dataclass
class Message:
    """A message as its handler sees it; ``current_message`` is the one in hand.

    Handlers and hooks read its attributes, and should not assign to them. Dispatch sets
    three of them: :attr:`deadline` and :attr:`stopping` at the start, :attr:`body`
    before the first hook.
    """

    #: The body as bytes, as it arrived.
    raw: bytes
    #: The queue from which the message was read.
    queue: str
    #: The message's id; ``None`` for a message of another program without an id.
    id: str | None = None
    #: The publisher's headers; those of this package begin with ``x-qconsume-``.
    headers: Mapping[str, t.Any] = field(default_factory=dict)
    #: The exchange to which the message was published.
    exchange: str = ""
    #: The routing key with which the message was published.
    routing_key: str = ""
    #: The ``key`` given to ``publish``, if any.
    key: str | None = None
    #: The number of this attempt; the first is 1.
    attempt: int = 1
    #: The number of processes that died while they handled this message as a suspect.
    deaths: int = 0
    #: The time of publishing, in seconds since 1970, if known.
    timestamp: float | None = None
    #: The time from which the message is dropped, in seconds since 1970, if any.
    expires_at: float | None = None
    #: The body's type; a message without a type is read as JSON.
    content_type: str | None = None
    #: The body's character set or encoding, if any.
    content_encoding: str | None = None
    #: 0 to 9, the highest first, on brokers that have priorities.
    priority: int | None = None
    #: True if the broker has delivered the message before.
    redelivered: bool = False
    #: Further properties of the broker (``correlation_id``, ``reply_to``, ...).
    properties: Mapping[str, t.Any] = field(default_factory=dict)
    #: True if the message has no body at all, which on Kafka removes its key.
    tombstone: bool = False
    #: The decoded body, before the schema loads it.
    body: t.Any = None
    #: The end of the handler's time limit, on the clock of :func:`time.monotonic`.
    deadline: float | None = None
    #: Set once the worker is stopping; a long handler can check it.
    stopping: threading.Event = _NEVER

    @property
    def remaining(self) -> float | None:
        """Seconds until the time limit, at least 0; ``None`` without a limit."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())


def create_outgoing(fields: dict[str, t.Any]) -> Outgoing:
    """Create an :class:`Outgoing` quickly, from a dict of all its fields."""
    message = object.__new__(Outgoing)
    object.__setattr__(message, "__dict__", fields)
    return message


def create_message(fields: dict[str, t.Any]) -> Message:
    """Create a :class:`Message` quickly, from a dict of its fields.

    Only fields with a plain default may be missing. Every delivery creates a message,
    and calling the class with all fields takes longer.
    """
    message = object.__new__(Message)
    message.__dict__ = fields
    return message


@dataclass(frozen=True)
class Outgoing:
    """A message to be published, whose body is encoded."""

    #: The routing key; a queue's name if the exchange is ``""``.
    routing_key: str
    body: bytes
    #: ``""`` is the broker's default exchange.
    exchange: str = ""
    id: str | None = None
    #: This message's own dict. Until the message is sent, names may be added.
    headers: dict[str, t.Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    #: Seconds since 1970.
    timestamp: float | None = None
    priority: int | None = None
    #: Further AMQP properties by name (``correlation_id``, ``reply_to``, ...).
    properties: Mapping[str, t.Any] = field(default_factory=dict)
    #: Seconds for which the broker holds the message back.
    delay: float = 0.0
    #: Seconds after which the message is dropped instead of handled.
    expires: float | None = None
    #: If true, publishing raises an error where no queue is bound for the message.
    mandatory: bool = True
    #: Orders or partitions messages, on brokers that know keys.
    key: str | None = None
    #: True if the message has no body at all.
    tombstone: bool = False
