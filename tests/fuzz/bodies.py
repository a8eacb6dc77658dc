"""Bodies of any type and character set: decoded, or refused with a reason."""

from __future__ import annotations

import contextlib
import json
import struct

from google.protobuf.wrappers_pb2 import StringValue

from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.dead_letters import DeadLetter
from flask_qconsume.cli import dead_letter_text as letters
from flask_qconsume.errors import InvalidMessage
from flask_qconsume.formats.base import Decoder
from flask_qconsume.formats.compression import BY_HEADER
from flask_qconsume.formats.json import Json
from flask_qconsume.formats.protobuf import ProtobufSchema
from flask_qconsume.formats.table import BUILT_IN
from flask_qconsume.formats.table import Formats
from flask_qconsume.handling.payload import decode
from flask_qconsume.handling.payload import encode
from flask_qconsume.message import Message
from flask_qconsume.settings import JSON
from flask_qconsume.text import escape

from . import values
from .taps import Taps

_SCHEMA = ProtobufSchema(StringValue)
_FORMATS = Formats(schemas=[_SCHEMA])

_TYPES = (
    *(None, JSON, "text/plain", "application/msgpack", "application/protobuf"),
    *("application/octet-stream", "application/cloudevents+json", "text/json"),
    *("text/plain; charset=", "application/json; charset="),
)
_CHARSETS = (
    *("utf-8", "utf-16", "latin-1", "utf-7", "base64", "zlib", "rot13", "idna", "hz"),
    *("cp1252", "punycode", "undefined", "unicode-escape", "gzip", "a\0b", "\ud800"),
    *(
        "x-gzip",
        "deflate",
        "utf_32_be",
        "iso2022_jp",
        "uu",
        "mbcs",
        "charmap",
        "...",
        "__init__",
        "aliases",
    ),
)


def bodies(data: bytes) -> None:
    """A body: what it means, or why it means nothing; and how it is shown."""
    taps = Taps(data)
    accepted = _FORMATS.decoders(schema=_SCHEMA if taps.pick((False, True)) else None)
    message = Message(
        headers=_headers(taps),
        content_type=_type(taps),
        content_encoding=_charset(taps) if taps.pick((False, True)) else None,
        raw=taps.rest(),
        queue="q",
    )
    try:
        found = decode(message, accepted, 1_000)
    except InvalidMessage as error:
        dead = own_headers.make_dead_letter_headers(
            message, "c", "q", error.reason, error, 1.0
        )
        for name in (own_headers.REASON, own_headers.ERROR, own_headers.TRACEBACK):
            dead[name].encode()
    else:
        dead = dict(message.headers)
        _encodes_again(message, found)
    _shows(DeadLetter("ref", "q", message, dead))


def _headers(taps: Taps) -> dict[str, object]:
    headers = values.mapping(taps)
    if compression := taps.pick((None, None, None, *BY_HEADER)):
        headers["compression"] = compression
    return headers


def _type(taps: Taps) -> str | None:
    found = taps.pick((*_TYPES, taps.text()))
    return found + _charset(taps) if found and found.endswith("=") else found


def _charset(taps: Taps) -> str:
    return taps.pick((*_CHARSETS, taps.text()))


def _encodes_again(message: Message, body: object) -> None:
    """What JSON means is what it means once it was written by us."""
    if message.content_type == JSON and message.content_encoding is None:
        raw = encode(body, JSON)[0].decode("utf-8") if _is_utf8(body) else None
        assert raw is None or json.loads(raw) == body


def _is_utf8(body: object) -> bool:
    try:
        encode(body, JSON)
    except UnicodeEncodeError:
        return False
    return True


def _shows(letter: DeadLetter) -> None:
    """On a terminal, without a control character; and as one line of JSON."""
    decoders = BUILT_IN.decoders()
    for cell in letters.format_row(letter):
        assert cell.isprintable()
    assert all(
        line.isprintable() for line in letters.format_page(letter, decoders).split("\n")
    )
    for whole in (False, True):
        line = letters.format_json(letter, decoders, whole=whole)
        assert line.isascii() and "\n" not in line
        assert json.loads(line)["ref"] == "ref"


def json_bodies(data: bytes) -> None:
    """Decode JSON by both decoders, which must agree."""
    message = Message(data, "q")
    assert _read(Json().decode, message) == _read(Json()._decode, message)


def _read(decode: Decoder, message: Message) -> str:
    try:
        return repr(decode(message))
    except Exception as error:
        return f"{type(error)}: {error}"


def texts(data: bytes) -> None:
    """Any text, shown in a line."""
    text = Taps(data).text()
    assert escape(text, 40).isprintable()
    assert text.isprintable() <= (escape(text) == text or len(text) > 500)


#: What keys may lie apart, so that their lowest bits are equal.
_STEPS = (*(1 << bits for bits in range(0, 62, 4)), 2**61 - 1, 2**31 - 1, 3)


def costs(data: bytes) -> None:
    """Some bytes again and again, or numbers as keys: the runner bounds the time."""
    taps = Taps(data)
    kind = taps.pick(
        (JSON, "application/msgpack", "application/protobuf", "text/plain")
    )
    count = taps.number(2)
    if kind == "application/msgpack" and taps.pick((True, False)):
        raw = _numbers(count, taps.pick(_STEPS), taps.number())
    else:
        raw = taps.piece() + taps.piece() * count + taps.rest()
    message = Message(raw[: 1 << 20], "q", content_type=kind)
    with contextlib.suppress(InvalidMessage):
        decode(message, _FORMATS.decoders(schema=_SCHEMA), 1 << 20)


def _numbers(count: int, step: int, first: int) -> bytes:
    """A mapping with numbers as keys, each a step from the one before."""
    keys = ((first + number * step) % 2**64 for number in range(count))
    pairs = b"".join(b"\xcf" + struct.pack(">Q", key) + b"\xc0" for key in keys)
    return b"\xdf" + struct.pack(">I", count) + pairs
