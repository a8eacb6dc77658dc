"""Bodies: decoded from bytes by their content type, and encoded into them.

Everything here is hostile input until it was decoded. Nothing that can execute code
(pickle, YAML) is ever decoded, whatever kombu would accept.
"""

from __future__ import annotations

import codecs
import datetime
import decimal
import json
import math
import typing as t
import uuid
from collections.abc import Callable
from collections.abc import Collection

import msgpack

from ..errors import MessageTooLarge
from ..errors import UndecodableMessage
from ..message import Message
from ..settings import BYTES
from ..settings import JSON
from ..settings import MSGPACK
from ..settings import TEXT
from ..text import printable

#: Set by a transport that could not read a message's properties: the reason.
UNREADABLE = "x-qconsume-unreadable"

_ALIASES = {
    "": JSON,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
    "text/json": JSON,
    "application/data": BYTES,
}

#: kombu writes these as the "encoding" of bodies that have no character set.
_NO_CHARSET = ("", "binary", "ascii-8bit", "utf-8")

#: Python's codecs that no message is written in. The first two take time that grows
#: with the square of the length: 16 MB would hold up the process for hours.
_NO_CHARSETS = ("punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined")

#: What decoders raise for bytes that they do not like: msgpack an ``OverflowError`` for
#: times in a far future, and a ``TypeError`` for a mapping whose key is a list.
_UNDECODABLE = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)


def decode(message: Message, accept: Collection[str], max_size: int) -> t.Any:
    """The body of a message.

    :param accept: The content types that are taken. The body of one that is not known
        here is given as bytes.
    :param max_size: Bytes.
    :raises MessageTooLarge: if it has more bytes than that.
    :raises UndecodableMessage: if it is nothing that can be decoded.
    """
    if len(message.raw) > max_size:
        raise MessageTooLarge(
            f"the body has {len(message.raw)} bytes, more than"
            f" 'QCONSUME_MAX_MESSAGE_SIZE' = {max_size}"
        )
    if UNREADABLE in message.headers:
        raise UndecodableMessage(f"unreadable: {message.headers[UNREADABLE]}")
    kind = _kind(message, accept)
    if message.headers.get("compression"):
        raise UndecodableMessage(
            f"the body is compressed by '{printable(message.headers['compression'])}',"
            " which is not supported"
        )
    try:
        return _DECODERS.get(kind, _decode_bytes)(message)
    except UndecodableMessage:
        raise
    except _UNDECODABLE as error:
        said = printable(error) or type(error).__name__
        raise UndecodableMessage(f"the body is no {kind}: {said}") from error


def encode(body: t.Any, content_type: str = JSON) -> bytes:
    """The bytes of a body.

    Beside what JSON knows, ``Decimal``, ``UUID``, dates and times are written as texts.

    :raises TypeError: if the body cannot be written as that.
    :raises ValueError: for an unknown content type, or NaN and infinity in JSON.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    encoder = _ENCODERS.get(_ALIASES.get(content_type, content_type))
    if encoder is None:
        raise ValueError(
            f"There is no encoder for '{content_type}': publish bytes, or one of:"
            f" {', '.join(_ENCODERS)}."
        )
    return encoder(body)


def _kind(message: Message, accept: Collection[str]) -> str:
    given = (message.content_type or "").partition(";")[0].strip().lower()
    kind = JSON if given.endswith("+json") else _ALIASES.get(given, given)
    if kind not in accept:
        raise UndecodableMessage(
            f"the content type '{printable(given)}' is not accepted; there are:"
            f" {', '.join(sorted(accept))}"
        )
    return kind


def _charset(message: Message) -> str:
    given = (message.content_encoding or "").strip().lower()
    _, found, in_type = (message.content_type or "").lower().partition("charset=")
    in_type = in_type.partition(";")[0].strip(' "')
    charset = given if given not in _NO_CHARSET else in_type if found else ""
    if charset in ("gzip", "deflate", "br", "zstd", "compress"):
        raise UndecodableMessage(f"the encoding '{charset}' is not supported")
    return charset or "utf-8"


def _decode_text(message: Message) -> str:
    charset = _charset(message)
    try:
        # Looked up apart, since an empty body would decode by any name.
        if codecs.lookup(charset).name in _NO_CHARSETS:
            raise LookupError(charset)
        return message.raw.decode(charset)
    except LookupError:
        raise UndecodableMessage(
            f"the character set '{printable(charset)}' is not known"
        ) from None


def _decode_json(message: Message) -> t.Any:
    if not message.raw:
        raise ValueError("it is empty")
    return json.loads(
        _decode_text(message), parse_constant=_no_constant, parse_float=_finite
    )


def _no_constant(name: str) -> t.Any:
    raise ValueError(f"'{name}' is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {printable(digits, 40)} is too large")
    return number


def _decode_msgpack(message: Message) -> t.Any:
    # The buffer is as large as the body, which was measured: no bomb can grow.
    return msgpack.unpackb(message.raw, raw=False, strict_map_key=False, timestamp=3)


def _decode_bytes(message: Message) -> bytes:
    return message.raw


_DECODERS: dict[str, Callable[[Message], t.Any]] = {
    JSON: _decode_json,
    MSGPACK: _decode_msgpack,
    TEXT: _decode_text,
    BYTES: _decode_bytes,
}


def _encode_json(body: t.Any) -> bytes:
    return json.dumps(
        body,
        default=_plain,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    ).encode()


def _encode_msgpack(body: t.Any) -> bytes:
    return t.cast(bytes, msgpack.packb(body, default=_plain))


def _encode_text(body: t.Any) -> bytes:
    if not isinstance(body, str):
        raise TypeError(f"A '{TEXT}' body must be a str, not '{type(body).__name__}'.")
    return body.encode()


_ENCODERS: dict[str, Callable[[t.Any], bytes]] = {
    JSON: _encode_json,
    MSGPACK: _encode_msgpack,
    TEXT: _encode_text,
}


def _plain(value: t.Any) -> str:
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    raise TypeError(
        f"A body cannot hold a '{type(value).__name__}'; publish what a schema's dump()"
        " returns, or plain values."
    )
