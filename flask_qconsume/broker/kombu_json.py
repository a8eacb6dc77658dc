"""JSON with kombu's extensions for dates, decimals and more. No I/O.

If msgspec is installed, it decodes texts without such values in a quarter of the time.
A text that msgspec refuses is decoded by the standard library.

kombu is imported when the first such value occurs: it brings py-amqp and billiard,
which take a megabyte of memory that a worker on Kafka can save.
"""

from __future__ import annotations

import json
import typing as t

from ..formats.bounds import check_json
from .headers import MAX_ITEMS

try:
    from msgspec.json import Decoder as FastDecoder
except ImportError:
    FastDecoder = None  # type: ignore[assignment,misc]


def encode(value: t.Any) -> str:
    """Encode a value as JSON, with kombu's extensions for dates, decimals and more.

    :raises TypeError: for a type that kombu cannot encode.
    :raises RecursionError: for a value that is nested too deeply.
    """
    return _ENCODER.encode(value)


def decode(text: str) -> t.Any:
    """Decode JSON that may contain kombu's extensions for dates, decimals and more.

    :raises TooManyItems: for a text that would take too much memory.
    :raises Exception: of any kind: kombu calls methods of the decoded values.
    """
    if len(text) > MAX_ITEMS:
        check_json(text.encode("utf-8", "surrogatepass"), MAX_ITEMS)
    if '"__type__"' not in text:
        return _decode_plain(text)
    from kombu.utils.json import loads

    return loads(text)  # type: ignore[no-untyped-call]


def _encode_special(value: t.Any) -> t.Any:
    from kombu.utils.json import JSONEncoder

    return JSONEncoder().default(value)  # type: ignore[no-untyped-call]


def _decode_plain(text: str) -> t.Any:
    if _decode_fast is not None:
        try:
            return _decode_fast(text)
        except Exception:
            pass  # The standard library accepts more, such as NaN.
    return json.loads(text)


#: 'json.dumps' would create a new one at each call.
_ENCODER = json.JSONEncoder(default=_encode_special)

_decode_fast: t.Callable[[str], t.Any] | None = None
if FastDecoder is not None:
    _decode_fast = FastDecoder().decode
