"""Messages for the broker, composed from the arguments of ``publish``. No I/O."""

from __future__ import annotations

import os
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
from ..registration.consumer import KombuExchange
from ..seconds import Duration
from ..seconds import parse_seconds
from ..settings import JSON
from ..settings import suggest
from ..text import escape
from ..text import quote
from . import headers as own_headers
from .headers import check_values

#: Longest short string of AMQP, in bytes.
_MAX_SHORT_BYTES = 255


class PublishOptions(t.TypedDict, total=False):
    """The options of ``publish``, as a mapping for one message of ``publish_many``."""

    headers: Mapping[str, t.Any] | None
    key: str | None
    delay: Duration | None
    expires: Duration | None
    priority: int | None
    content_type: str | None
    mandatory: bool
    exchange: str | KombuExchange | None
    id: str | None


OPTIONS = tuple(sorted(PublishOptions.__annotations__))


def compose(
    default_exchange: str,
    routing_key: str,
    body: t.Any,
    formats: Formats = BUILT_IN,
    /,
    *,
    headers: Mapping[str, t.Any] | None = None,
    key: str | None = None,
    delay: Duration | None = None,
    expires: Duration | None = None,
    priority: int | None = None,
    content_type: str | None = None,
    mandatory: bool = True,
    exchange: str | KombuExchange | None = None,
    id: str | None = None,
) -> Outgoing:
    """Check and encode one message; the options are those of ``publish``.

    :raises PublishError: for an argument that makes no sense; nothing was sent.
    """
    _check_routing_key(routing_key)
    content_type = content_type or formats.type_of(body)
    all_headers = _check_headers(headers)
    name = default_exchange if exchange is None else getattr(exchange, "name", exchange)
    _check_short("exchange", name)
    _check_short("content_type", content_type)
    tombstone = body is TOMBSTONE
    if tombstone and not key:
        raise PublishError("A tombstone needs a 'key': the key that is removed.")
    raw, format_headers = (
        (b"", {}) if tombstone else _encode(body, content_type, formats, routing_key)
    )
    all_headers |= format_headers
    check_values(all_headers)
    fields = {
        "routing_key": routing_key,
        "body": raw,
        "exchange": name,
        "id": _check_short("id", id) if id else generate_id(),
        "headers": all_headers,
        "content_type": content_type,
        "content_encoding": None
        if isinstance(body, bytes)
        else _find_encoding(content_type),
        "timestamp": time.time(),
        "priority": priority if priority is None else _check_priority(priority),
        "properties": {},
        "delay": 0.0 if delay is None else _parse_seconds("delay", delay),
        "expires": expires if expires is None else _parse_seconds("expires", expires),
        "mandatory": mandatory,
        "key": key if key is None else _check_key(key),
        "tombstone": tombstone,
    }
    return create_outgoing(fields)


def generate_id() -> str:
    """Create a random UUID (version 4; RFC 9562, 5.4) as text.

    Each message needs one, and :func:`uuid.uuid4` takes four times as long.
    """
    text = os.urandom(16).hex()
    variant = _VARIANT[text[16]]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


#: For each hex digit, the digit with its two upper bits set to ``10``, a UUID's
#: variant.
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def check_options(options: PublishOptions) -> None:
    """Refuse unknown options of a message that was passed to ``publish_many``.

    :raises PublishError: for the first such option, or if this is not a mapping.
    """
    if not isinstance(options, Mapping):
        raise PublishError(
            "The options of a message of 'publish_many' must be a mapping, such as"
            f' {{"delay": 60}}, not {quote(options)}.'
        )
    for name in options:
        if name not in OPTIONS:
            raise PublishError(
                f"'publish' has no option {quote(name)}{suggest(str(name), OPTIONS)}"
                f" It has: {', '.join(OPTIONS)}."
            )


def _check_routing_key(routing_key: t.Any) -> None:
    if not routing_key:
        raise PublishError(f"The routing key must be a text, not {quote(routing_key)}.")
    _check_short("routing_key", routing_key)


def _check_short(name: str, value: t.Any) -> str:
    """Return a text, or refuse it if it is too long for a short string of AMQP."""
    if type(value) is str and value.isascii() and len(value) <= _MAX_SHORT_BYTES:
        return value  # The fast path, for nearly all values.
    if not isinstance(value, str) or len(_encode_utf8(value)) > _MAX_SHORT_BYTES:
        raise PublishError(
            f"'{name}' must be a text of {_MAX_SHORT_BYTES} bytes at the most, not"
            f" {quote(value)}."
        )
    return value


def _encode_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise PublishError(f"{quote(text)} cannot be written as UTF-8.") from error


def _check_headers(headers: t.Any) -> dict[str, t.Any]:
    if not isinstance(headers, (Mapping, NoneType)):
        raise PublishError(f"'headers' must be a mapping, not {quote(headers)}.")
    copied_headers = dict(headers or {})
    for name in copied_headers:
        _check_short("a header's name", name)
        if name.lower().startswith(own_headers.PREFIX):
            raise PublishError(
                f"The header {quote(name)} cannot be set: the prefix"
                f" '{own_headers.PREFIX}' is kept for flask_qconsume itself."
            )
    return copied_headers


def _encode(
    body: t.Any, content_type: str, formats: Formats, routing_key: str
) -> tuple[bytes, Mapping[str, t.Any]]:
    """Encode a body to bytes; return the bytes, and all headers of the message."""
    try:
        return encode(body, content_type, formats, routing_key)
    except Exception as error:
        raise PublishError(
            f"The body cannot be written as {escape(content_type)}: {escape(error)}"
        ) from error


def _find_encoding(content_type: str) -> str | None:
    return "utf-8" if content_type.startswith(("text/", JSON)) else "binary"


def _check_priority(value: t.Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise PublishError(
            f"'priority' must be a whole number 0 to 9, not {quote(value)}."
        )
    return value


def _parse_seconds(name: str, value: t.Any) -> float:
    try:
        return float(parse_seconds(value))
    except (TypeError, ValueError):
        raise PublishError(
            f"'{name}' must be seconds from 0 up, or a timedelta, not {quote(value)}."
        ) from None


def _check_key(value: t.Any) -> str:
    if not isinstance(value, str):
        raise PublishError(f"'key' must be a text, not {quote(value)}.")
    _encode_utf8(value)
    return value


def make_unroutable_error(message: Outgoing) -> Unroutable:
    """Create the error for a message whose routing key matches no binding."""
    return Unroutable(
        f"{_describe_missing(message)}, so no consumer would get the message. Register"
        " a consumer for it, run 'flask qconsume declare' in the app that has the"
        " consumer, or publish with mandatory=False."
    )


def _describe_missing(message: Outgoing) -> str:
    key = quote(message.routing_key)
    if not message.exchange:
        return f"There is no queue {key}"
    return (
        f"No queue is bound to the exchange {quote(message.exchange)} for the routing"
        f" key {key}"
    )
