"""JSON with kombu's extensions, for properties and headers in Redis. No I/O."""

from __future__ import annotations

import contextlib
import json
import typing as t

from kombu.utils.json import JSONEncoder
from kombu.utils.json import loads

from ...broker import headers as own_headers
from ...errors import PublishRefused
from ...formats.bounds import check_json

_kombu_encoder = JSONEncoder()
_decode_standard = json.JSONDecoder().raw_decode
_decode_kombu: t.Any = loads


def encode_json(values: dict[str, t.Any]) -> bytes:
    """Encode a value as JSON, with kombu's extensions for dates, decimals and more.

    :raises PublishRefused: if JSON cannot hold a value.
    """
    try:
        return _kombu_encoder.encode(values).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise PublishRefused(
            f"The message's headers cannot be written as JSON ({error}). On Redis they"
            " may hold texts, numbers, dates, lists and mappings."
        ) from error


def decode_json(element: bytes) -> t.Any:
    """Decode JSON that kombu or another program has written.

    :raises TooManyItems: if the JSON has too many items.
    """
    check_json(element, own_headers.MAX_ITEMS)
    # kombu's decoder, which reads dates and the like, is slow and seldom needed.
    if b'"__type__"' in element:
        # It calls methods of the values that it finds, so it may raise anything.
        with contextlib.suppress(Exception):
            return _decode_kombu(element)
    # 'json.loads' guesses the encoding, which takes longer than decoding.
    try:
        text = element.decode()
        value, end = _decode_standard(text)
    except ValueError:
        return json.loads(element)
    return value if end == len(text) else json.loads(element)
