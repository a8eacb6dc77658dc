"""kombu's JSON envelope, read into messages and written for them. No I/O.

Anything may lie in a list. What is no envelope of kombu's is a foreign message: its
body is the element itself, whatever its bytes are, and reading it never fails.
"""

from __future__ import annotations

import base64
import hashlib
import typing as t
import uuid
from collections.abc import Mapping

from ...broker import properties as basic_properties
from ...message import Message
from ..redis.json_values import decode_json
from ..redis.json_values import encode_json
from .keys import HIGHEST

_REDELIVERED = "redelivered"


def encode_envelope(
    properties: Mapping[str, t.Any], body: bytes, *, exchange: str, routing_key: str
) -> bytes:
    """An envelope with a delivery tag of its own.

    :param properties: AMQP's basic properties by name, ``headers`` among them.
    :raises PublishRefused: if there is something in them that JSON cannot hold.
    """
    rest = dict(properties)
    if "priority" in rest:
        rest["priority"] = to_kombu_priority(rest["priority"])
    return encode_json(
        {
            "body": base64.b64encode(body).decode("ascii"),
            "content-encoding": rest.pop("content_encoding", None),
            "content-type": rest.pop("content_type", None),
            "headers": rest.pop("headers", {}),
            "properties": {
                **rest,
                "body_encoding": "base64",
                "delivery_tag": _tag(),
                "delivery_info": {"exchange": exchange, "routing_key": routing_key},
            },
        }
    )


def read_element(element: bytes, queue: str) -> Message:
    """The message in an element of a list."""
    return _opened(element, queue)[0]


def mark_redelivered(element: bytes, queue: str) -> bytes:
    """The same message, marked as kombu marks it, with a delivery tag of its own.

    An element that is no envelope comes to lie in one.
    """
    message, envelope = _opened(element, queue)
    if envelope is None:
        properties = basic_properties.encode_copy(message, {_REDELIVERED: True})
        return encode_envelope(properties, element, exchange="", routing_key=queue)
    found = envelope["properties"]
    info = {**_mapping(found.get("delivery_info")), _REDELIVERED: True}
    return encode_json(
        {
            **envelope,
            "headers": {**_mapping(envelope.get("headers")), _REDELIVERED: True},
            "properties": {**found, "delivery_info": info, "delivery_tag": _tag()},
        }
    )


def encode_delayed(element: bytes, step: int) -> bytes:
    """An envelope as it lies in the set of what is delayed: behind its step."""
    return b"%d:%s" % (step, element)


def read_reference(element: bytes) -> str:
    """What tells a dead letter from the others: the delivery tag of its envelope."""
    envelope = _envelope(element)
    tag = envelope["properties"].get("delivery_tag") if envelope else None
    return tag if isinstance(tag, str) else hashlib.sha256(element).hexdigest()


def to_kombu_priority(priority: t.Any) -> int:
    """kombu's number for one of ours: 0 is its highest."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        return 0
    return HIGHEST - max(0, min(priority, HIGHEST))


def _opened(element: bytes, queue: str) -> tuple[Message, dict[str, t.Any] | None]:
    """The message, and its envelope unless it is a foreign one."""
    envelope = _envelope(element)
    body = _body(envelope) if envelope else None
    if envelope is not None and body is not None:
        try:
            return _message(envelope, body, queue), envelope
        except Exception:
            pass  # Nonsense inside: it is nobody's envelope.
    return _foreign(element, queue), None


def _foreign(element: bytes, queue: str) -> Message:
    return basic_properties.read_message(
        element,
        queue=queue,
        exchange="",
        routing_key=queue,
        redelivered=False,
        properties={},
        headers={},
    )


def _envelope(element: bytes) -> dict[str, t.Any] | None:
    """The element as JSON, if it is an envelope of kombu's."""
    if not element.startswith(b"{"):
        return None
    try:
        found = decode_json(element)
    except Exception:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("body"), str):
        return None
    properties = found.get("properties")
    # A tag is what kombu itself cannot do without: it tells an envelope from somebody's
    # JSON that has a "body" and "properties" too.
    known = isinstance(properties, dict) and "delivery_tag" in properties
    return found if known else None


def _body(envelope: Mapping[str, t.Any]) -> bytes | None:
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


def _message(envelope: Mapping[str, t.Any], body: bytes, queue: str) -> Message:
    properties = envelope["properties"]
    headers = _mapping(envelope.get("headers"))
    info = _mapping(properties.get("delivery_info"))
    marks = (headers.pop(_REDELIVERED, None), info.get(_REDELIVERED))
    return basic_properties.read_message(
        body,
        queue=queue,
        exchange=_text(info.get("exchange"), ""),
        routing_key=_text(info.get("routing_key"), queue),
        # kombu's Redis transport writes the first two, its other transports the third.
        redelivered=any(m is True for m in (*marks, envelope.get(_REDELIVERED))),
        properties={
            **properties,
            "content_type": envelope.get("content-type"),
            "content_encoding": envelope.get("content-encoding"),
            "priority": _priority(properties.get("priority")),
        },
        headers=headers,
    )


def _priority(number: t.Any) -> int | None:
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    return HIGHEST - number if 0 <= number <= HIGHEST else None


def _tag() -> str:
    return str(uuid.uuid4())


def _mapping(value: t.Any) -> dict[str, t.Any]:
    return dict(value) if isinstance(value, dict) else {}


def _text(value: t.Any, default: str) -> str:
    return value if isinstance(value, str) else default
