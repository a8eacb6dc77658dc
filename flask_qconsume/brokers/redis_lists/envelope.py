"""Conversion between messages and kombu's JSON envelopes. No I/O.

An envelope is a JSON object with the body, headers and properties. A list may hold any
bytes. An element that is not an envelope is read as a foreign message, with the whole
element as its body, so reading never fails.
"""

from __future__ import annotations

import base64
import hashlib
import typing as t
import uuid
from collections.abc import Mapping

from ...broker import headers as own_headers
from ...broker import properties as basic_properties
from ...message import Message
from ..redis.json_values import decode_json
from ..redis.json_values import encode_json
from ..redis.options import HIGHEST

_REDELIVERED = "redelivered"

#: The property with the time at which a message is ready, if that is not the time of
#: its publishing; in seconds since 1970.
_READY_AT = "x-qconsume-ready-at"
#: The properties are the last part of an envelope.
_PROPERTIES = b'"properties": {'


def encode_envelope(
    properties: Mapping[str, t.Any],
    body: bytes,
    *,
    exchange: str,
    routing_key: str,
    ready_at: float | None = None,
) -> bytes:
    """Encode a message as a JSON envelope of kombu, with a new delivery tag.

    :param properties: AMQP's basic properties by name, including ``headers``.
    :param ready_at: The time from which the message may be handled, in seconds since
        1970, if that is not the time of its publishing.
    :raises PublishRefused: if JSON cannot hold a value.
    """
    rest = dict(properties)
    if "priority" in rest:
        rest["priority"] = to_kombu_priority(rest["priority"])
    if ready_at is not None:
        rest[_READY_AT] = ready_at
    return encode_json(
        {
            "body": base64.b64encode(body).decode("ascii"),
            "content-encoding": rest.pop("content_encoding", None),
            "content-type": rest.pop("content_type", None),
            "headers": rest.pop("headers", {}),
            "properties": {
                **rest,
                "body_encoding": "base64",
                "delivery_tag": _create_tag(),
                "delivery_info": {"exchange": exchange, "routing_key": routing_key},
            },
        }
    )


def read_element(element: bytes, queue: str) -> Message:
    """Decode an element of a Redis list as a message; never fail."""
    return _read(element, queue)[0]


def read_ready_time(end: bytes) -> float | None:
    """Return since when a message has been ready, in seconds since 1970.

    :param end: The end of the message's element: with the properties, if there are any.
    :returns: ``None`` if a message of another program does not tell.
    """
    _, found, rest = end.rpartition(_PROPERTIES)
    properties = _decode_mapping(b"{" + rest.removesuffix(b"}")) if found else {}
    ready_at = own_headers.read_time(properties, _READY_AT)
    return ready_at or own_headers.read_time(properties, "timestamp")


def mark_redelivered(element: bytes, queue: str) -> bytes:
    """Return an element with kombu's mark for redelivered messages, and a new tag.

    An element that is not an envelope becomes the body of a new envelope.
    """
    message, envelope = _read(element, queue)
    if envelope is None:
        properties = basic_properties.encode_copy(message, {_REDELIVERED: True})
        return encode_envelope(properties, element, exchange="", routing_key=queue)
    old_properties = envelope["properties"]
    info = {**_read_mapping(old_properties.get("delivery_info")), _REDELIVERED: True}
    tag = _create_tag()
    return encode_json(
        {
            **envelope,
            "headers": {**_read_mapping(envelope.get("headers")), _REDELIVERED: True},
            "properties": {
                **old_properties,
                "delivery_info": info,
                "delivery_tag": tag,
            },
        }
    )


def encode_delayed(element: bytes, step: int) -> bytes:
    """Encode an envelope and its priority step for the set of delayed messages."""
    return b"%d:%s" % (step, element)


def read_reference(element: bytes) -> str:
    """Return the text by which commands name a dead letter."""
    envelope = _decode_envelope(element)
    tag = envelope["properties"].get("delivery_tag") if envelope else None
    return tag if isinstance(tag, str) else hashlib.sha256(element).hexdigest()


def to_kombu_priority(priority: t.Any) -> int:
    """Convert a priority, of which 9 is the highest, to kombu's, of which 0 is."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        return 0
    return HIGHEST - max(0, min(priority, HIGHEST))


def _read(element: bytes, queue: str) -> tuple[Message, dict[str, t.Any] | None]:
    """Return an element's message and envelope; a foreign message has no envelope."""
    envelope = _decode_envelope(element)
    body = _decode_body(envelope) if envelope else None
    if envelope is not None and body is not None:
        try:
            return _create_message(envelope, body, queue), envelope
        except Exception:
            pass  # A value is invalid: treat the element as a foreign message.
    return _create_foreign_message(element, queue), None


def _create_foreign_message(element: bytes, queue: str) -> Message:
    return basic_properties.read_message(
        element,
        queue=queue,
        exchange="",
        routing_key=queue,
        redelivered=False,
        properties={},
        headers={},
    )


def _decode_envelope(element: bytes) -> dict[str, t.Any] | None:
    """Decode an element as a JSON envelope of kombu; ``None`` if it is none."""
    if not element.startswith(b"{"):
        return None
    document = _decode_mapping(element)
    if not isinstance(document.get("body"), str):
        return None
    properties = document.get("properties")
    # kombu itself needs the tag, so it tells an envelope from other JSON with a "body"
    # and "properties".
    is_envelope = isinstance(properties, dict) and "delivery_tag" in properties
    return document if is_envelope else None


def _decode_mapping(text: bytes) -> dict[str, t.Any]:
    """Decode a JSON object; return an empty one for other content."""
    try:
        return _read_mapping(decode_json(text))
    except Exception:
        return {}


def _decode_body(envelope: Mapping[str, t.Any]) -> bytes | None:
    text: str = envelope["body"]
    encoding = envelope["properties"].get("body_encoding")
    if encoding is None or encoding == "utf-8":
        return text.encode("utf-8", "surrogatepass")
    if encoding != "base64":
        return None
    try:
        return base64.b64decode(text, validate="\n" not in text)
    except ValueError:
        return None


def _create_message(envelope: Mapping[str, t.Any], body: bytes, queue: str) -> Message:
    properties = envelope["properties"]
    headers = _read_mapping(envelope.get("headers"))
    info = _read_mapping(properties.get("delivery_info"))
    marks = (headers.pop(_REDELIVERED, None), info.get(_REDELIVERED))
    return basic_properties.read_message(
        body,
        queue=queue,
        exchange=_read_text(info.get("exchange"), ""),
        routing_key=_read_text(info.get("routing_key"), queue),
        # kombu's Redis transport writes two marks, its other transports the third.
        redelivered=any(m is True for m in (*marks, envelope.get(_REDELIVERED))),
        properties={
            **properties,
            "content_type": envelope.get("content-type"),
            "content_encoding": envelope.get("content-encoding"),
            "priority": _from_kombu_priority(properties.get("priority")),
        },
        headers=headers,
    )


def _from_kombu_priority(number: t.Any) -> int | None:
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    return HIGHEST - number if 0 <= number <= HIGHEST else None


def _create_tag() -> str:
    return str(uuid.uuid4())


def _read_mapping(value: t.Any) -> dict[str, t.Any]:
    return dict(value) if isinstance(value, dict) else {}


def _read_text(value: t.Any, default: str) -> str:
    return value if isinstance(value, str) else default
