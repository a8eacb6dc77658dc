"""Conversion between messages and AMQP's basic properties. No I/O.

kombu gives messages these properties on other brokers, too, so all brokers use them.
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

#: Properties that a copy keeps as they are. Left out: ``expiration`` (it does not apply
#: to consumed messages, and wait queues use it), ``user_id`` (the broker refuses that
#: of another user) and ``delivery_mode`` (every copy is persistent).
_COPIED = ("correlation_id", "reply_to", "type", "app_id", "cluster_id")
#: Properties in :attr:`.Message.properties`.
_SHOWN = (*_COPIED, "user_id")
_SHOWN_SET = frozenset(_SHOWN)


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
    """Create a message from its properties, headers and body.

    :param properties: AMQP's basic properties by name, without ``headers``.
    :param headers: The headers; any value that is not a mapping counts as empty.
    """
    table = dict(headers) if isinstance(headers, (dict, Mapping)) else {}
    get = properties.get
    fields = {
        "raw": raw,
        "queue": queue,
        "id": _read_text(get("message_id")),
        "headers": table,
        "exchange": exchange,
        "routing_key": routing_key,
        "timestamp": _read_timestamp(get("timestamp")),
        "content_type": _read_text(get("content_type")),
        "content_encoding": _read_text(get("content_encoding")),
        "priority": _read_octet(get("priority")),
        "redelivered": redelivered,
        "properties": {},
    }
    if not _SHOWN_SET.isdisjoint(properties):
        fields["properties"] = {k: properties[k] for k in _SHOWN if get(k)}
    if table:
        _read_own_headers(table, fields)
    return create_message(fields)


def _read_own_headers(table: Mapping[str, t.Any], fields: dict[str, t.Any]) -> None:
    for name in table:
        if name in _OWN_HEADERS:
            field, read = _OWN_HEADERS[name]
            value = read(table, name)
            if value is not None:
                fields[field] = value


def _read_attempt(headers: Mapping[str, t.Any], name: str) -> int:
    return own_headers.read_int(headers, name, 1)


def _read_deaths(headers: Mapping[str, t.Any], name: str) -> int:
    return own_headers.read_int(headers, name, 0)


def _read_published_at(headers: Mapping[str, t.Any], name: str) -> float | None:
    return own_headers.read_time(headers, name) or None


#: Fields and readers, by the names of our own headers.
_OWN_HEADERS: dict[str, tuple[str, t.Callable[[Mapping[str, t.Any], str], t.Any]]] = {
    own_headers.EXCHANGE: ("exchange", own_headers.read_text),
    own_headers.ROUTING_KEY: ("routing_key", own_headers.read_text),
    own_headers.KEY: ("key", own_headers.read_text),
    own_headers.ATTEMPT: ("attempt", _read_attempt),
    own_headers.DEATHS: ("deaths", _read_deaths),
    own_headers.PUBLISHED_AT: ("timestamp", _read_published_at),
    own_headers.EXPIRES_AT: ("expires_at", own_headers.read_time),
}


def encode_outgoing(message: Outgoing) -> dict[str, t.Any]:
    """Encode a published message's fields as AMQP's basic properties."""
    headers = dict(message.headers)
    now = message.timestamp or time.time()
    headers.setdefault(own_headers.PUBLISHED_AT, now)
    if message.key is not None:
        headers[own_headers.KEY] = message.key
    if message.expires is not None:
        headers[own_headers.EXPIRES_AT] = now + message.delay + message.expires
    return _drop_missing(
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
    """Encode AMQP's basic properties for a copy that has different headers."""
    return _drop_missing(
        {
            **{k: message.properties[k] for k in _COPIED if k in message.properties},
            "message_id": message.id,
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
            "priority": message.priority,
            "timestamp": None if message.timestamp is None else int(message.timestamp),
            "delivery_mode": 2,
            "headers": dict(headers),
        }
    )


def _drop_missing(properties: dict[str, t.Any]) -> dict[str, t.Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _read_text(value: t.Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _read_octet(value: t.Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= 255 else None


def _read_timestamp(value: t.Any) -> float | None:
    """Return a message's timestamp as seconds since 1970."""
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            value = value.timestamp()
    return own_headers.read_time({"": value}, "")
