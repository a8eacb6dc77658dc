"""Conversion of RabbitMQ's messages. No I/O; no content of a message makes it fail."""

from __future__ import annotations

import typing as t

from ...broker import headers as own_headers
from ...broker import properties
from ...handling.payload import UNREADABLE
from ...message import Message
from ...text import shorten
from .amqp.frames import BasicDeliver
from .amqp.frames import Content
from .amqp.frames import parse_properties


def convert_content(content: Content, queue: str) -> Message:
    """Convert a message of py-amqp, assembled from frames, to a :class:`Message`.

    A message with unreadable headers has one header,
    :data:`~flask_qconsume.handling.payload.UNREADABLE`, which says why.
    """
    info = content.delivery_info
    return _convert(
        content.properties,
        content.problem,
        raw=content.body,
        queue=queue,
        exchange=info["exchange"],
        routing_key=info["routing_key"],
        redelivered=bool(info["redelivered"]),
    )


def convert_delivery(delivery: BasicDeliver, queue: str) -> Message:
    """Convert a delivery that :mod:`.amqp.frames` has parsed to a :class:`Message`."""
    return _convert(
        *parse_properties(delivery.header),
        raw=delivery.body,
        queue=queue,
        exchange=delivery.exchange,
        routing_key=delivery.routing_key,
        redelivered=delivery.redelivered,
    )


def _convert(basic: dict[str, t.Any], problem: str | None, **fields: t.Any) -> Message:
    headers = basic.get("application_headers") or {}
    if problem is not None:
        headers = _unreadable_headers(problem)
    try:
        return properties.read_message(**fields, properties=basic, headers=headers)
    except Exception as error:
        headers = _unreadable_headers(repr(error))
        return properties.read_message(**fields, properties={}, headers=headers)


def _unreadable_headers(problem: str) -> dict[str, t.Any]:
    return {UNREADABLE: shorten(problem, own_headers.MAX_ERROR)}
