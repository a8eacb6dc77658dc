"""Messages as they arrive from RabbitMQ. No I/O, and no way to fail."""

from __future__ import annotations

import typing as t

from ...broker import headers as own_headers
from ...broker import properties
from ...handling.payload import UNREADABLE
from ...message import Message
from ...text import shorten
from .amqp.frames import BasicDeliver
from .amqp.frames import Content
from .amqp.frames import properties_of


def arrived(content: Content, queue: str) -> Message:
    """The message in a delivery.

    One whose headers cannot be read has a single header,
    :data:`~flask_qconsume.handling.payload.UNREADABLE`, that says why.
    """
    info = content.delivery_info
    return _message(
        content.properties,
        content.problem,
        raw=content.body,
        queue=queue,
        exchange=info["exchange"],
        routing_key=info["routing_key"],
        redelivered=bool(info["redelivered"]),
    )


def delivered(delivery: BasicDeliver, queue: str) -> Message:
    """The same of one whose frames came all at once."""
    return _message(
        *properties_of(delivery.header),
        raw=delivery.body,
        queue=queue,
        exchange=delivery.exchange,
        routing_key=delivery.routing_key,
        redelivered=delivery.redelivered,
    )


def unreadable(problem: str) -> dict[str, t.Any]:
    """The headers of a message whose own cannot be read."""
    return {UNREADABLE: shorten(problem, own_headers.MAX_ERROR)}


def _message(basic: dict[str, t.Any], problem: str | None, **arrival: t.Any) -> Message:
    headers = basic.get("application_headers") or {}
    if problem is not None:
        headers = unreadable(problem)
    try:
        return properties.read_message(**arrival, properties=basic, headers=headers)
    except Exception as error:
        headers = unreadable(repr(error))
        return properties.read_message(**arrival, properties={}, headers=headers)
