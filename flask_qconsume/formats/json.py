"""JSON, the format of bodies that do not say theirs.

Where msgspec is installed (the extra ``speed``), it reads them, in a third of the time.
What it refuses is read by the standard library, which decides: so what a body means,
and what is said of a bad one, does not depend on it.
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
    from msgspec.json import Decoder as QuickDecoder
except ImportError:
    QuickDecoder = None  # type: ignore[assignment,misc]


class Json(Format):
    """What JSON means, without NaN and infinity, which are none."""

    content_types = (JSON, "text/json", "+json")

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self._max_items = max_items

    def decode(self, message: Message) -> t.Any:
        raw = message.raw
        if len(raw) > self._max_items:
            self._check(message)
        if _quickly is not None and is_utf8(message):
            try:
                return _quickly(raw)
            except Exception:
                pass  # Whatever ails it is found, and told, by the other one.
        return self._decoded(message)

    def _check(self, message: Message) -> None:
        raw = message.raw
        if not is_utf8(message):
            # In UTF-16 and the like, these bytes may be parts of other characters.
            raw = decode_text(message).encode("utf-8", "surrogatepass")
        check_json(raw, self._max_items)

    def _decoded(self, message: Message) -> t.Any:
        if not message.raw:
            raise ValueError("it is empty")
        return _read(decode_text(message))

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        raw = _ENCODER.encode(body).encode()
        if len(raw) > MAX_DEPTH:
            check_depth(raw)
        return raw


def to_plain(value: t.Any) -> t.Any:
    """What stands for a value that JSON does not know."""
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


def _no_constant(name: str) -> t.Any:
    raise ValueError(f"'{name}' is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {escape(digits, 40)} is too large")
    return number


def _read(text: str) -> t.Any:
    """What a text means, without a search for white space around it if there is none.

    That search takes a tenth of the time that short bodies take.
    """
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError:
        end = -1
    return value if end == len(text) else _DECODER.decode(text)


#: 'json.loads' and 'json.dumps' would make new ones each time.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_ENCODER = json.JSONEncoder(
    default=to_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")
)

#: Reads what is certainly the same by any reader's rules, or raises.
_quickly: t.Callable[[bytes], t.Any] | None = None
if QuickDecoder is not None:
    _quickly = QuickDecoder().decode
