"""Payloads: the mappings by which kombu's transports pass messages on. No I/O.

A payload's keys are ``body``, ``headers``, ``content-type``, ``content-encoding`` and
``properties``, a mapping of AMQP's other properties.
"""

from __future__ import annotations

import time
import typing as t

from ..broker import headers as own_headers
from ..broker import properties as basic_properties
from ..message import Message

Payload = dict[str, t.Any]

#: Our headers for which a payload has places of its own, or that concern one delivery
#: only. kombu's consumers would forward them with the message.
_HIDDEN = frozenset(
    {
        own_headers.ATTEMPT,
        own_headers.DEATHS,
        own_headers.EXCHANGE,
        own_headers.EXPIRES_AT,
        own_headers.KEY,
        own_headers.PUBLISHED_AT,
        own_headers.ROUTING_KEY,
        own_headers.SUSPECTED_AT,
    }
)


def create_payload(message: Message, tag: str, redelivered: bool) -> Payload:
    """Create the payload by which kombu delivers a message.

    :param tag: The delivery tag.
    """
    properties = {**basic_properties.encode_copy(message, {}), **message.properties}
    properties.pop("headers")
    return {
        "body": message.raw,
        "headers": {k: v for k, v in message.headers.items() if k not in _HIDDEN},
        "content-type": properties.pop("content_type", None),
        "content-encoding": properties.pop("content_encoding", None),
        "properties": {
            **properties,
            "delivery_tag": tag,
            "delivery_info": {
                "exchange": message.exchange,
                "routing_key": message.routing_key,
                "redelivered": redelivered,
            },
        },
    }


def create_rejected_headers(message: Message, queue: str) -> dict[str, t.Any]:
    """Create the headers of a dead letter that kombu's ``reject`` makes."""
    return own_headers.make_dead_letter_headers(
        message, "kombu", queue, "rejected", None, time.time()
    )


def read_body(payload: Payload) -> bytes:
    """Return a payload's body as bytes."""
    body = payload.get("body") or b""
    return body.encode() if isinstance(body, str) else bytes(body)


def read_delay(payload: Payload) -> float:
    """Return the seconds in the header ``x-delay`` (milliseconds); 0 without it."""
    return _to_seconds((payload.get("headers") or {}).get("x-delay"))


def read_expiration(payload: Payload) -> float | None:
    """Return the seconds after which a message expires; ``None`` if it never does."""
    value = payload["properties"].get("expiration")
    return None if value is None else _to_seconds(value)


def has_expired(message: Message) -> bool:
    """Return whether a message has expired, so that it is dropped."""
    return message.expires_at is not None and message.expires_at < time.time()


def _to_seconds(milliseconds: t.Any) -> float:
    """Convert milliseconds (a number or a text) to seconds; 0 for any other value."""
    if isinstance(milliseconds, bool):
        return 0.0
    try:
        return max(0.0, float(milliseconds or 0) / 1_000)
    except (TypeError, ValueError):
        return 0.0
