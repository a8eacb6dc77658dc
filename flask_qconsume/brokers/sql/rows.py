"""Conversion between messages and rows. No I/O.

The column ``meta`` holds AMQP's basic properties as JSON, with the headers, the
exchange and the routing key. A row of another program may leave it out. Reading a row
never fails.
"""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker import headers as own_headers
from ...broker import kombu_json
from ...broker import properties as basic_properties
from ...errors import PublishRefused
from ...message import Message
from ...message import Outgoing
from .database import NewMessage


def encode_outgoing(message: Outgoing, queues: Sequence[str]) -> list[NewMessage]:
    """Encode a published message as the rows for its queues.

    :raises PublishRefused: if JSON cannot hold a header's value.
    """
    properties = basic_properties.encode_outgoing(message)
    meta = encode_meta(properties, message.exchange, message.routing_key)
    delay, expires = message.delay or None, message.expires
    if expires is not None:
        expires += message.delay
    key = clean(message.key)
    columns = -(message.priority or 0), delay, expires, key, meta, message.body
    return [NewMessage(queue, *columns) for queue in queues]


def clean(text: str | None) -> str | None:
    """Escape characters that a database's text cannot hold."""
    if text is None:
        return None
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def encode_copy(message: Message, headers: Mapping[str, t.Any], queue: str) -> str:
    """Encode the column ``meta`` of a message that moves to another queue.

    :raises PublishRefused: if JSON cannot hold a header's value.
    """
    properties = basic_properties.encode_copy(message, headers)
    return encode_meta(properties, "", queue)


def encode_meta(
    properties: Mapping[str, t.Any], exchange: str, routing_key: str
) -> str:
    """Encode the column ``meta``.

    :raises PublishRefused: if JSON cannot hold a value.
    """
    meta = {**properties, "exchange": exchange, "routing_key": routing_key}
    try:
        return kombu_json.encode(meta)
    except (TypeError, ValueError, RecursionError) as error:
        raise PublishRefused(
            f"The message's headers cannot be written as JSON ({error}). In a database"
            " they may hold texts, numbers, dates, lists and mappings."
        ) from error


def read_message(
    meta: t.Any,
    body: t.Any,
    queue: str,
    redelivered: bool = False,
    key: str | None = None,
) -> Message:
    """Decode a row as a message."""
    properties = _decode_meta(meta)
    exchange, routing_key = properties.get("exchange"), properties.get("routing_key")
    return basic_properties.read_message(
        _read_body(body),
        queue=queue,
        exchange=exchange if isinstance(exchange, str) else "",
        routing_key=routing_key if isinstance(routing_key, str) else queue,
        redelivered=redelivered,
        properties=properties,
        headers=_add_key(properties.get("headers"), key),
    )


def read_claimed(row: Sequence[t.Any], queue: str) -> tuple[int, Message]:
    """Decode the columns ``CLAIMED_COLUMNS``: return the number and the message."""
    id, _, redelivered, _, meta, body, key = row
    return id, read_message(meta, body, queue, bool(redelivered), key)


def read_claimed_in_order(row: Sequence[t.Any], queue: str) -> tuple[int, Message]:
    """Decode as :func:`read_claimed` does, and add the column ``deaths``."""
    id, message = read_claimed(row, queue)
    return id, dataclasses.replace(message, deaths=row[3])


def _add_key(headers: t.Any, key: str | None) -> t.Any:
    """Add the column ``key`` to the headers; rows of other programs lack the header."""
    if key is None:
        return headers
    return {own_headers.KEY: key, **(headers if isinstance(headers, dict) else {})}


def _decode_meta(meta: t.Any) -> Mapping[str, t.Any]:
    try:
        value = kombu_json.decode(meta)
    except Exception:
        return {}
    return value if isinstance(value, dict) else {}


def _read_body(body: t.Any) -> bytes:
    # SQLite stores any value that another program inserts, such as a text or a number.
    if isinstance(body, bytes):
        return body
    return str(body).encode("utf-8", "surrogateescape")
