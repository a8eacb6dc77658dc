"""AMQP's basic properties, read into messages and written from them. No I/O.

kombu's virtual transports carry the same properties, so this serves every broker.
"""

from __future__ import annotations

import contextlib
import datetime
import time
import typing as t
from collections.abc import Mapping

from ..message import Message
from ..message import Outgoing
from ..message import create_message
from . import headers as own_headers

#: Properties that a copy keeps as they are. Left out: ``expiration`` (it is over once
#: consumed, and delays by it), ``user_id`` (the broker refuses another user's) and
#: ``delivery_mode`` (every copy is persistent).
_KEPT = ("correlation_id", "reply_to", "type", "app_id", "cluster_id")
#: Properties that a message shows.
_SHOWN = (*_KEPT, "user_id")
_ANY_SHOWN = frozenset(_SHOWN)


def read_message(
    raw: bytes,
    *,
    queue: str,
    exchange: str,
    routing_key: str,
    redelivered: bool,
    properties: Mapping[str, t.Any],
    headers: t.Any,
) -> Message:
    """A message as it arrived.

    :param properties: AMQP's basic properties by name, ``headers`` apart.
    """
    table = dict(headers) if isinstance(headers, (dict, Mapping)) else {}
    get = properties.get
    fields = {
        "raw": raw,
        "queue": queue,
        "id": _text(get("message_id")),
        "headers": table,
        "exchange": exchange,
        "routing_key": routing_key,
        "timestamp": _timestamp(get("timestamp")),
        "content_type": _text(get("content_type")),
        "content_encoding": _text(get("content_encoding")),
        "priority": _octet(get("priority")),
        "redelivered": redelivered,
        "properties": {},
    }
    if not _ANY_SHOWN.isdisjoint(properties):
        fields["properties"] = {k: properties[k] for k in _SHOWN if get(k)}
    if table:
        _read_ours(table, fields)
    return create_message(fields)


def _read_ours(table: Mapping[str, t.Any], fields: dict[str, t.Any]) -> None:
    for name in table:
        if name in _OURS:
            field, read = _OURS[name]
            value = read(table, name)
            if value is not None:
                fields[field] = value


def _attempt(headers: Mapping[str, t.Any], name: str) -> int:
    return own_headers.read_int(headers, name, 1)


def _deaths(headers: Mapping[str, t.Any], name: str) -> int:
    return own_headers.read_int(headers, name, 0)


def _published_at(headers: Mapping[str, t.Any], name: str) -> float | None:
    return own_headers.read_time(headers, name) or None


#: The fields that our headers say, and what reads each.
_OURS: dict[str, tuple[str, t.Callable[[Mapping[str, t.Any], str], t.Any]]] = {
    own_headers.EXCHANGE: ("exchange", own_headers.read_text),
    own_headers.ROUTING_KEY: ("routing_key", own_headers.read_text),
    own_headers.KEY: ("key", own_headers.read_text),
    own_headers.ATTEMPT: ("attempt", _attempt),
    own_headers.DEATHS: ("deaths", _deaths),
    own_headers.PUBLISHED_AT: ("timestamp", _published_at),
    own_headers.EXPIRES_AT: ("expires_at", own_headers.read_time),
}


def encode_outgoing(message: Outgoing) -> dict[str, t.Any]:
    """AMQP's basic properties for a message that is published."""
    headers = dict(message.headers)
    now = message.timestamp or time.time()
    headers.setdefault(own_headers.PUBLISHED_AT, now)
    if message.key is not None:
        headers[own_headers.KEY] = message.key
    if message.expires is not None:
        headers[own_headers.EXPIRES_AT] = now + message.delay + message.expires
    return _present(
        {
            **message.properties,
            "message_id": message.id,
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
            "priority": message.priority,
            "timestamp": int(now),
            "delivery_mode": 2,
            "headers": headers,
        }
    )


def encode_copy(message: Message, headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """AMQP's basic properties for a copy of a message, with other headers."""
    return _present(
        {
            **{k: message.properties[k] for k in _KEPT if k in message.properties},
            "message_id": message.id,
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
            "priority": message.priority,
            "timestamp": None if message.timestamp is None else int(message.timestamp),
            "delivery_mode": 2,
            "headers": dict(headers),
        }
    )


def _present(properties: dict[str, t.Any]) -> dict[str, t.Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _text(value: t.Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _octet(value: t.Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= 255 else None


def _timestamp(value: t.Any) -> float | None:
    """py-amqp gives a ``datetime`` in UTC, others give seconds."""
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            value = value.timestamp()
    return own_headers.read_time({"": value}, "")
