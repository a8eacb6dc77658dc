"""Decodes message bodies by their content type, and encodes bodies to bytes.

Bytes are hostile input until they are decoded; see :mod:`..formats`.
"""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Mapping

from ..errors import InvalidMessage
from ..errors import MessageTooLarge
from ..errors import UndecodableMessage
from ..formats.compression import BY_ENCODING
from ..formats.compression import BY_HEADER
from ..formats.compression import Decompressors
from ..formats.compression import decompress
from ..formats.json import Json
from ..formats.table import BUILT_IN
from ..formats.table import Decoders
from ..formats.table import Formats
from ..formats.table import find_content_type
from ..formats.table import find_decoder
from ..formats.table import list_content_types
from ..formats.table import normalize_content_type
from ..formats.text import Text
from ..formats.text import check_charset
from ..message import Message
from ..outcomes import Outcome
from ..settings import JSON
from ..text import escape
from ..text import stringify

#: The header in which a transport says why it could not read a message's properties.
UNREADABLE = "x-qconsume-unreadable"


def decode(message: Message, decoders: Decoders, max_size: int) -> t.Any:
    """Decode the body of a message.

    :param decoders: The decoders of the accepted content types.
    :param max_size: The largest size of a body, in bytes.
    :raises MessageTooLarge: if the body is larger, compressed or decompressed.
    :raises UndecodableMessage: if the content type is not accepted, or the bytes do not
        have that type.
    """
    if len(message.raw) > max_size:
        raise MessageTooLarge(
            f"the body has {len(message.raw)} bytes, more than"
            f" 'QCONSUME_MAX_MESSAGE_SIZE' = {max_size}"
        )
    headers = message.headers
    if UNREADABLE in headers:
        raise UndecodableMessage(f"unreadable: {headers[UNREADABLE]}")
    content_type = message.content_type
    decoder = decoders.get(content_type) or find_decoder(decoders, content_type)
    if decoder is None:
        name = escape(normalize_content_type(content_type or ""))
        raise UndecodableMessage(
            f"the content type '{name}' is not accepted;"
            f" there are: {', '.join(list_content_types(decoders))}"
        )
    if "compression" in headers or message.content_encoding in BY_ENCODING:
        message = _decompress_message(message, max_size)
    try:
        return decoder(message)
    except (InvalidMessage, Outcome):
        raise
    except Exception as error:
        # A decoder may raise anything, also by a mistake of its own; the dead letter
        # keeps the bytes.
        raise UndecodableMessage(
            f"the body is no {find_content_type(decoders, decoder)}:"
            f" {_describe_error(error)}"
        ) from error


def _decompress_message(message: Message, max_size: int) -> Message:
    """Return a message with its body decompressed.

    kombu encodes a body first, and then compresses it. So the compression in kombu's
    header is undone before the content encoding.
    """
    raw, encoding = message.raw, message.content_encoding
    if header := message.headers.get("compression"):
        raw = _decompress(raw, header, BY_HEADER, max_size)
    if encoding is not None and encoding in BY_ENCODING:
        raw, encoding = _decompress(raw, encoding, BY_ENCODING, max_size), None
    return dataclasses.replace(message, raw=raw, content_encoding=encoding)


def _decompress(
    raw: bytes, name: t.Any, decompressors: Decompressors, max_size: int
) -> bytes:
    create = decompressors.get(name) if isinstance(name, str) else None
    if create is None:
        raise UndecodableMessage(
            f"the body is compressed by '{escape(name)}', which is not supported;"
            f" there are: {', '.join(decompressors)}"
        )
    try:
        return decompress(raw, create, max_size)
    except MessageTooLarge:
        raise
    except Exception as error:
        raise UndecodableMessage(
            f"the body is not compressed by '{name}': {_describe_error(error)}"
        ) from error


def encode(
    body: t.Any,
    content_type: str = JSON,
    formats: Formats = BUILT_IN,
    routing_key: str = "",
) -> tuple[bytes, Mapping[str, t.Any]]:
    """Encode a body; return its bytes, and the headers that describe them.

    In JSON, ``Decimal``, ``UUID``, dates and times become strings.

    :raises TypeError: if the body has values that the format cannot write.
    :raises ValueError: for an unknown content type, or NaN and infinity in JSON.
    :raises Exception: any error of a registered format.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), {}
    format = formats.find(content_type)
    if format is None:
        raise ValueError(
            f"There is no encoder for '{escape(content_type)}': publish bytes, or"
            f" one of: {', '.join(list_content_types(formats.decoders()))}."
        )
    raw = format.encode(body, routing_key)
    if not isinstance(raw, bytes):
        raise TypeError(
            f"'{type(format).__name__}.encode' returned a '{type(raw).__name__}', which"
            " must be bytes."
        )
    if "=" in content_type and isinstance(format, (Json, Text)):
        check_charset(raw, content_type)
    return raw, format.headers(body)


def _describe_error(error: Exception) -> str:
    kind, text = type(error).__name__, escape(stringify(error))
    if not text:
        return kind
    return text if isinstance(error, ValueError) else f"{kind}: {text}"
