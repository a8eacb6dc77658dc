"""JSON as kombu writes and reads it. No I/O."""

from __future__ import annotations

import contextlib
import json
import typing as t

from kombu.utils.json import JSONEncoder
from kombu.utils.json import loads

from ...broker import headers as own_headers
from ...errors import PublishRefused
from ...formats.bounds import check_json

_encoder = JSONEncoder()
_decoded = json.JSONDecoder().raw_decode
_kombu_loads: t.Any = loads


def encode_json(envelope: dict[str, t.Any]) -> bytes:
    """As JSON, in kombu's way.

    :raises PublishRefused: if there is something in it that JSON cannot hold.
    """
    try:
        return _encoder.encode(envelope).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise PublishRefused(
            f"The message's headers cannot be written as JSON ({error}). On Redis they"
            " may hold texts, numbers, dates, lists and mappings."
        ) from error


def decode_json(element: bytes) -> t.Any:
    """What was written as JSON, in kombu's way or anybody else's.

    :raises TooManyItems: for what is a large body rather than an envelope.
    """
    check_json(element, own_headers.MAX_ITEMS)
    # kombu's way to read dates and such is slow, and few messages have any.
    if b'"__type__"' in element:
        # It calls methods of whatever it finds there: it may raise anything.
        with contextlib.suppress(Exception):
            return _kombu_loads(element)
    # To guess the encoding takes longer than to read it.
    try:
        text = element.decode()
        value, end = _decoded(text)
    except ValueError:
        return json.loads(element)
    return value if end == len(text) else json.loads(element)
