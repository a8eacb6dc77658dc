"""JSON, the default format of bodies.

If msgspec is installed (the extra ``speed``), it decodes bodies in a third of the time.
A body that msgspec refuses is decoded by the standard library, so results and errors
are the same with and without msgspec.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import typing as t
import uuid

from ..message import Message
from ..settings import JSON
from ..settings import MAX_ITEMS
from ..text import escape
from .base import Format
from .bounds import MAX_DEPTH
from .bounds import check_depth
from .bounds import check_json
from .protobuf import is_protobuf
from .protobuf import to_json_values
from .text import decode_text
from .text import is_utf8

try:
    from msgspec.json import Decoder as FastDecoder
except ImportError:
    FastDecoder = None  # type: ignore[assignment,misc]


class Json(Format):
    """JSON, without NaN and infinity, which the standard excludes."""

    content_types = (JSON, "text/json", "+json")

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self._max_items = max_items

    def decode(self, message: Message) -> t.Any:
        raw = message.raw
        if len(raw) > self._max_items:
            self._check(message)
        if _decode_fast is not None and is_utf8(message):
            try:
                return _decode_fast(raw)
            except Exception:
                pass  # The standard library's decoder raises the right error.
        return self._decode(message)

    def _check(self, message: Message) -> None:
        raw = message.raw
        if not is_utf8(message):
            # In UTF-16, for example, a comma's byte may be a part of another character.
            raw = decode_text(message).encode("utf-8", "surrogatepass")
        check_json(raw, self._max_items)

    def _decode(self, message: Message) -> t.Any:
        if not message.raw:
            raise ValueError("it is empty")
        return _parse(decode_text(message))

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        raw = _ENCODER.encode(body).encode()
        if len(raw) > MAX_DEPTH:
            check_depth(raw)
        return raw


def to_plain(value: t.Any) -> t.Any:
    """Convert a value that JSON lacks, such as a date, to a value that JSON has.

    :raises TypeError: for an unknown type.
    """
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if is_protobuf(value):
        return to_json_values(value)
    raise TypeError(
        f"A body cannot hold a '{type(value).__name__}'; publish what a schema's dump()"
        " returns, or plain values."
    )


def _refuse_constant(name: str) -> t.Any:
    raise ValueError(f"'{name}' is not JSON")


def _parse_finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {escape(digits, 40)} is too large")
    return number


def _parse(text: str) -> t.Any:
    """Parse JSON; if that fails, remove white space around the text and try again.

    Removing white space in any case would make parsing a short body a tenth slower.
    """
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError:
        end = -1
    return value if end == len(text) else _DECODER.decode(text)


#: 'json.loads' and 'json.dumps' would create new ones at each call.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_finite)
_ENCODER = json.JSONEncoder(
    default=to_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")
)

#: Decodes bodies that mean the same to every decoder, and refuses all other bodies.
_decode_fast: t.Callable[[bytes], t.Any] | None = None
if FastDecoder is not None:
    _decode_fast = FastDecoder().decode
