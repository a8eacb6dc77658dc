"""What a user publishes, made into messages for the broker. No I/O."""

from __future__ import annotations

import os
import sys
import time
import typing as t
from collections.abc import Mapping
from types import NoneType

from ..errors import PublishError
from ..errors import Unroutable
from ..formats.table import BUILT_IN
from ..formats.table import Formats
from ..handling.payload import encode
from ..message import TOMBSTONE
from ..message import Outgoing
from ..message import create_outgoing
from ..settings import JSON
from ..text import escape
from ..text import quote
from . import headers as own_headers
from .headers import check_values

#: AMQP's short strings hold 255 bytes.
_LONGEST = 255

#: Seconds: the largest of floats.
_LONGEST_TIME = sys.float_info.max

OPTIONS = (
    "content_type",
    "delay",
    "exchange",
    "expires",
    "headers",
    "id",
    "key",
    "mandatory",
    "priority",
)


def compose(
    default_exchange: str,
    routing_key: str,
    body: t.Any,
    formats: Formats = BUILT_IN,
    /,
    **options: t.Any,
) -> Outgoing:
    """One message, checked and encoded; the options are those of ``publish``.

    :raises PublishError: if something of it makes no sense; nothing was sent.
    """
    _known(options)
    _check_routing_key(routing_key)
    exchange = options.get("exchange")
    content_type = options.get("content_type") or formats.type_of(body)
    headers = _headers(options.get("headers"))
    name = default_exchange if exchange is None else getattr(exchange, "name", exchange)
    _check_short("exchange", name)
    _check_short("content_type", content_type)
    tombstone = body is TOMBSTONE
    if tombstone and not options.get("key"):
        raise PublishError("A tombstone needs a 'key': it is what is no more.")
    raw, more = (
        (b"", {}) if tombstone else _encoded(body, content_type, formats, routing_key)
    )
    headers |= more
    check_values(headers)
    fields = {
        "routing_key": routing_key,
        "body": raw,
        "exchange": name,
        "headers": headers,
        "content_type": content_type,
        "content_encoding": (
            None if isinstance(body, bytes) else _encoding(content_type)
        ),
        "timestamp": time.time(),
        "properties": {},
        "tombstone": tombstone,
    }
    for option, read in _READ.items():
        if option in options:
            fields[option] = read(option, options[option])
    if not fields.get("id"):
        fields["id"] = generate_id()
    return create_outgoing(fields)


def generate_id() -> str:
    """A random UUID (version 4; RFC 9562, 5.4) as text.

    One is made for each message, and :func:`uuid.uuid4` takes four times as long.
    """
    text = os.urandom(16).hex()
    variant = _VARIANT[text[16]]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


#: Any digit, with the two bits that say a UUID's variant.
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def _known(options: dict[str, t.Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            raise PublishError(
                f"'publish' has no option {quote(name)}. It has: {', '.join(OPTIONS)}."
            )


def _check_routing_key(routing_key: t.Any) -> None:
    if not routing_key:
        raise PublishError(f"The routing key must be a text, not {quote(routing_key)}.")
    _check_short("routing_key", routing_key)


def _check_short(name: str, value: t.Any) -> str:
    """What AMQP writes as a short string."""
    if type(value) is str and value.isascii() and len(value) <= _LONGEST:
        return value  # As nearly all are.
    if not isinstance(value, str) or len(_utf8(value)) > _LONGEST:
        raise PublishError(
            f"'{name}' must be a text of {_LONGEST} bytes at the most, not"
            f" {quote(value)}."
        )
    return value


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise PublishError(f"{quote(text)} cannot be written as UTF-8.") from error


def _headers(headers: t.Any) -> dict[str, t.Any]:
    if not isinstance(headers, (Mapping, NoneType)):
        raise PublishError(f"'headers' must be a mapping, not {quote(headers)}.")
    found = dict(headers or {})
    for name in found:
        _check_short("a header's name", name)
        if name.lower().startswith(own_headers.PREFIX):
            raise PublishError(
                f"The header {quote(name)} cannot be set: the prefix"
                f" '{own_headers.PREFIX}' is kept for flask_qconsume itself."
            )
    return found


def _encoded(
    body: t.Any, content_type: str, formats: Formats, routing_key: str
) -> tuple[bytes, Mapping[str, t.Any]]:
    """The bytes of a body, and what headers go with it."""
    try:
        return encode(body, content_type, formats, routing_key)
    except Exception as error:
        raise PublishError(
            f"The body cannot be written as {escape(content_type)}: {escape(error)}"
        ) from error


def _encoding(content_type: str) -> str | None:
    return "utf-8" if content_type.startswith(("text/", JSON)) else "binary"


def _id(name: str, value: t.Any) -> str | None:
    return _check_short(name, value) if value else None


def _as_given(name: str, value: t.Any) -> t.Any:
    return value


def _priority(name: str, value: t.Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise PublishError(
            f"'{name}' must be a whole number 0 to 9, not {quote(value)}."
        )
    return value


def _seconds(name: str, value: t.Any) -> float | None:
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= _LONGEST_TIME:
        raise PublishError(f"'{name}' must be seconds from 0 up, not {quote(value)}.")
    return float(value)


def _delay(name: str, value: t.Any) -> float:
    return _seconds(name, value) or 0.0


def _key(name: str, value: t.Any) -> str | None:
    if not isinstance(value, (str, NoneType)):
        raise PublishError(f"'{name}' must be a text, not {quote(value)}.")
    _utf8(value or "")
    return value


#: What reads an option that becomes a field as it is.
_READ: dict[str, t.Callable[[str, t.Any], t.Any]] = {
    "id": _id,
    "priority": _priority,
    "delay": _delay,
    "expires": _seconds,
    "mandatory": _as_given,
    "key": _key,
}


def make_unroutable_error(message: Outgoing) -> Unroutable:
    """The error for a message that no queue is bound for."""
    return Unroutable(
        f"{_nobody(message)}, so nobody would get the message. Register a consumer for"
        " it, run 'flask qconsume declare' in the app that has it, or publish with"
        " mandatory=False."
    )


def _nobody(message: Outgoing) -> str:
    key = quote(message.routing_key)
    if not message.exchange:
        return f"There is no queue {key}"
    return (
        f"No queue is bound to the exchange {quote(message.exchange)} for the routing"
        f" key {key}"
    )
