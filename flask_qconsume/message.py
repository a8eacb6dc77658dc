"""Messages, in and out. Knows nothing about brokers, Flask or gevent."""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

_NEVER = threading.Event()


class Tombstone:
    """The type of :data:`TOMBSTONE`."""

    def __repr__(self) -> str:
        return "TOMBSTONE"


#: Published in place of a body, on Kafka: what the key stood for is no more.
TOMBSTONE = Tombstone()


@dataclass(frozen=True)
class Message:
    """A message as its handler sees it; :data:`.current_message` is one."""

    #: The body as bytes, as it came.
    raw: bytes
    #: The queue it was read from.
    queue: str
    #: The message's id; ``None`` for a foreign message that has none.
    id: str | None = None
    #: The publisher's headers; ours begin with ``x-qconsume-``.
    headers: Mapping[str, t.Any] = field(default_factory=dict)
    #: The exchange it was published to.
    exchange: str = ""
    #: The routing key it was published with.
    routing_key: str = ""
    #: The key given to ``publish(key=)``, if any.
    key: str | None = None
    #: 1 for the first attempt.
    attempt: int = 1
    #: How many processes died while they handled this message apart from others.
    deaths: int = 0
    #: When it was published, in seconds since 1970, if known.
    timestamp: float | None = None
    #: When it is worth nothing any more, in seconds since 1970, if ever.
    expires_at: float | None = None
    #: The body's type; JSON is assumed where there is none.
    content_type: str | None = None
    #: The body's character set or encoding, if it has one.
    content_encoding: str | None = None
    #: 0 to 9, the highest first, where the broker knows priorities.
    priority: int | None = None
    #: Whether the broker has delivered it before.
    redelivered: bool = False
    #: Further properties of the broker's (``correlation_id``, ``reply_to``, ...).
    properties: Mapping[str, t.Any] = field(default_factory=dict)
    #: Whether it has no body at all, which on Kafka removes its key.
    tombstone: bool = False
    #: The decoded body, as it was before the schema.
    body: t.Any = None
    #: When the handler's time is over, on :func:`time.monotonic`'s clock.
    deadline: float | None = None
    #: Set as soon as the worker is stopping; a long handler may look at it.
    stopping: threading.Event = _NEVER

    @property
    def remaining(self) -> float | None:
        """The seconds left until :attr:`deadline`, at least 0; ``None`` without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())


def create_outgoing(fields: dict[str, t.Any]) -> Outgoing:
    """A message to be sent, of these fields; as :func:`made`."""
    message = object.__new__(Outgoing)
    object.__setattr__(message, "__dict__", fields)
    return message


def create_message(fields: dict[str, t.Any]) -> Message:
    """A message of these fields; those without a plain default must be among them.

    One is made for every arrival, and calling a frozen dataclass takes four times as
    long.
    """
    message = object.__new__(Message)
    object.__setattr__(message, "__dict__", fields)
    return message


def start_deadline(
    message: Message, timeout: float, stopping: threading.Event | None
) -> None:
    """Give a message ``timeout`` seconds from now on.

    This, and :func:`fill_in`, are for who hands it to its handler, which no other one
    has: a message that is handled once more is another one. Frozen, it is so for them.
    """
    fields = message.__dict__
    fields["deadline"] = time.monotonic() + timeout
    if stopping is not None:
        fields["stopping"] = stopping


def set_body(message: Message, body: t.Any) -> None:
    """Give a message its decoded body."""
    message.__dict__["body"] = body


@dataclass(frozen=True)
class Outgoing:
    """A message on its way to the broker, its body encoded."""

    #: The routing key; with the exchange ``""`` it is a queue's name.
    routing_key: str
    body: bytes
    #: ``""`` is the broker's default exchange.
    exchange: str = ""
    id: str | None = None
    headers: Mapping[str, t.Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    #: Seconds since 1970.
    timestamp: float | None = None
    priority: int | None = None
    #: Further AMQP properties by name (``correlation_id``, ``reply_to``, ...).
    properties: Mapping[str, t.Any] = field(default_factory=dict)
    #: Seconds that the broker holds it back.
    delay: float = 0.0
    #: Seconds after which the broker may forget it.
    expires: float | None = None
    #: Whether it is an error when no queue is bound for it.
    mandatory: bool = True
    #: What orders or partitions it, where the broker knows that.
    key: str | None = None
    #: Whether it has no body at all.
    tombstone: bool = False
