"""Messages as they arrive from RabbitMQ. No I/O, and no way to fail."""

from __future__ import annotations

import typing as t

from ...handling.payload import UNREADABLE
from ...message import Message
from ...text import shortened
from ...transports.amqp_frames import Content
from .. import headers as ours
from .. import properties


def arrived(content: Content, queue: str) -> Message:
    """The message in a delivery.

    One whose headers cannot be read has a single header,
    :data:`~flask_qconsume.handling.payload.UNREADABLE`, that says why.
    """
    basic = dict(content.properties)
    headers = basic.pop("application_headers", None) or {}
    if content.problem is not None:
        headers = unreadable(content.problem)
    try:
        return _message(content, queue, basic, headers)
    except Exception as error:
        return _message(content, queue, {}, unreadable(repr(error)))


def unreadable(problem: str) -> dict[str, t.Any]:
    """The headers of a message whose own cannot be read."""
    return {UNREADABLE: shortened(problem, ours.MAX_ERROR)}


def _message(
    content: Content, queue: str, basic: dict[str, t.Any], headers: dict[str, t.Any]
) -> Message:
    info = content.delivery_info
    return properties.incoming(
        content.body,
        queue=queue,
        exchange=info["exchange"],
        routing_key=info["routing_key"],
        redelivered=bool(info["redelivered"]),
        properties=basic,
        headers=headers,
    )
