"""Published messages that a test has captured."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UndecodableMessage
from ..formats.table import Decoders
from ..handling.payload import decode
from ..message import Message
from ..message import Outgoing
from ..outcomes import Outcome


@dataclass(frozen=True)
class Published:
    """A published message, as its consumers would get it."""

    routing_key: str
    #: The body, encoded and decoded again; ``bytes`` if the content type is unknown.
    body: t.Any
    id: str
    exchange: str
    #: The headers given to ``publish``.
    headers: Mapping[str, t.Any]
    key: str | None
    #: Seconds.
    delay: float
    #: Seconds, or ``None``.
    expires: float | None
    priority: int | None

    @classmethod
    def from_outgoing(cls, message: Outgoing, decoders: Decoders) -> Published:
        """Create a ``Published`` from an outgoing message; decode its body."""
        return cls(
            routing_key=message.routing_key,
            body=_decode_body(message, decoders),
            id=message.id or "",
            exchange=message.exchange,
            headers={
                name: value
                for name, value in message.headers.items()
                if not name.startswith("x-qconsume-")
            },
            key=message.key,
            delay=message.delay,
            expires=message.expires,
            priority=message.priority,
        )


def _decode_body(message: Outgoing, decoders: Decoders) -> t.Any:
    arrived = Message(
        message.body, "", headers=message.headers, content_type=message.content_type
    )
    try:
        return decode(arrived, decoders, len(message.body))
    except (UndecodableMessage, Outcome):
        return message.body
