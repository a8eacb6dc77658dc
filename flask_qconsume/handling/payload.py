"""Bodies: decoded from bytes by their content type, and encoded into them.

Everything here is hostile input until it was decoded: see :mod:`..formats`.
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

#: Set by a transport that could not read a message's properties: the reason.
UNREADABLE = "x-qconsume-unreadable"


def decode(message: Message, decoders: Decoders, max_size: int) -> t.Any:
    """The body of a message.

    :param decoders: By content type; what is not there is not accepted.
    :param max_size: Bytes.
    :raises MessageTooLarge: if it has more bytes than that, or grows to more.
    :raises UndecodableMessage: if it is nothing that can be decoded.
    """
    if len(message.raw) > max_size:
        raise MessageTooLarge(
            f"the body has {len(message.raw)} bytes, more than"
            f" 'QCONSUME_MAX_MESSAGE_SIZE' = {max_size}"
        )
    headers = message.headers
    if UNREADABLE in headers:
        raise UndecodableMessage(f"unreadable: {headers[UNREADABLE]}")
    given = message.content_type
    decoder = decoders.get(given) or find_decoder(decoders, given)
    if decoder is None:
        name = escape(normalize_content_type(given or ""))
        raise UndecodableMessage(
            f"the content type '{name}' is not accepted;"
            f" there are: {', '.join(list_content_types(decoders))}"
        )
    if "compression" in headers or message.content_encoding in BY_ENCODING:
        message = _decompressed(message, max_size)
    try:
        return decoder(message)
    except (InvalidMessage, Outcome):
        raise
    except Exception as error:
        # Whatever a decoder raises, and be it a mistake of its own: the bytes are kept.
        raise UndecodableMessage(
            f"the body is no {find_content_type(decoders, decoder)}: {_told(error)}"
        ) from error


def _decompressed(message: Message, max_size: int) -> Message:
    """The same message with a body as it was before it was compressed.

    kombu compresses what was encoded already, so its header comes first.
    """
    raw, encoding = message.raw, message.content_encoding
    if header := message.headers.get("compression"):
        raw = _grown(raw, header, BY_HEADER, max_size)
    if encoding is not None and encoding in BY_ENCODING:
        raw, encoding = _grown(raw, encoding, BY_ENCODING, max_size), None
    return dataclasses.replace(message, raw=raw, content_encoding=encoding)


def _grown(raw: bytes, name: t.Any, known: Decompressors, max_size: int) -> bytes:
    found = known.get(name) if isinstance(name, str) else None
    if found is None:
        raise UndecodableMessage(
            f"the body is compressed by '{escape(name)}', which is not supported;"
            f" there are: {', '.join(known)}"
        )
    try:
        return decompress(raw, found, max_size)
    except MessageTooLarge:
        raise
    except Exception as error:
        raise UndecodableMessage(
            f"the body is not compressed by '{name}': {_told(error)}"
        ) from error


def encode(
    body: t.Any,
    content_type: str = JSON,
    formats: Formats = BUILT_IN,
    routing_key: str = "",
) -> tuple[bytes, Mapping[str, t.Any]]:
    """The bytes of a body, and the headers that go with them.

    Beside what JSON knows, ``Decimal``, ``UUID``, dates and times are written as texts.

    :raises TypeError: if the body cannot be written as that.
    :raises ValueError: for an unknown content type, or NaN and infinity in JSON.
    :raises Exception: whatever a registered format raises.
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


def _told(error: Exception) -> str:
    """What an error says; of which kind it is, where that says more."""
    kind, text = type(error).__name__, escape(stringify(error))
    if not text:
        return kind
    return text if isinstance(error, ValueError) else f"{kind}: {text}"
