"""Conversion between messages and entries of a Redis stream. No I/O.

An entry of this package has two fields: the body as it is, and :data:`META`, the
properties as JSON. Any other entry is a foreign message. Its fields are its headers,
and one of them is its body; if that field is missing, the body is a JSON object of all
fields. Reading an entry never fails.

In a sorted set, an entry is packed: ``step:length:meta body``.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
import uuid
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from ...broker import properties as basic_properties
from ...message import Message
from ..redis.json_values import decode_json
from ..redis.json_values import encode_json

#: Name of the field by which entries of this package are recognized.
META = "x-qconsume"
#: An id that begins with less is no time: the year 2001.
_FIRST_TIME = 1e9
_META = META.encode()

_CONTENT_TYPES = ("content_type", "content-type", "Content-Type")
_ENCODINGS = ("content_encoding", "content-encoding", "Content-Encoding")
_PACKED = re.compile(rb"(\d{1,9}):(\d{1,9}):")


@dataclass(frozen=True)
class Entry:
    """The fields of a stream entry that is to be written: properties and body."""

    meta: bytes
    body: bytes

    def pack(self, step: int) -> bytes:
        """Encode the entry as bytes, to be a member of a sorted set.

        The bytes contain a random text ("ref"), since a sorted set cannot hold two
        equal members.
        """
        ref = str(uuid.uuid4()).encode()
        meta = b'%s, "ref": "%s"}' % (self.meta.removesuffix(b"}"), ref)
        return b"%d:%d:%s%s" % (step, len(meta), meta, self.body)


def encode_entry(
    properties: Mapping[str, t.Any], body: bytes, *, exchange: str, routing_key: str
) -> Entry:
    """Encode a message as an entry.

    :param properties: AMQP's basic properties by name, including ``headers``.
    :raises PublishRefused: if JSON cannot hold a value.
    """
    meta = {**properties, "exchange": exchange, "routing_key": routing_key}
    return Entry(encode_json(meta), body)


def read_entry(
    fields: Sequence[bytes], queue: str, body_field: str, redelivered: bool = False
) -> Message:
    """Decode an entry as a message.

    :param fields: The fields' names and values, alternating.
    """
    # Entries of this package have their fields in a fixed order, which is quick to
    # test.
    if len(fields) == 4 and fields[2] == _META:
        try:
            meta = _decode_meta(fields[3])
            if meta is not None:
                return _create_own_message(meta, fields[1], queue, redelivered)
        except Exception:
            pass  # A value is invalid: treat the entry as a foreign message.
    pairs: dict[bytes, list[bytes]] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        pairs.setdefault(name, []).append(value)
    return _create_foreign_message(pairs, queue, body_field, redelivered)


def split_entries(
    heads: bytes, texts: bytes
) -> Iterator[tuple[str, list[bytes], bool]]:
    """Decode the two texts that a script returns for the entries that it has read.

    :returns: For each entry the tag, the fields, and whether the entry is redelivered.
    """
    at = 0
    for head in heads.decode().splitlines():
        tag, mark, *lengths = head.split(" ")
        fields = []
        for length in lengths:
            end = at + int(length)
            fields.append(texts[at:end])
            at = end
        yield tag, fields, mark == "1"


def unpack_member(element: bytes, queue: str) -> tuple[Message, str]:
    """Decode a member of a sorted set; return its message and its random "ref"."""
    match = _PACKED.match(element)
    start = match.end() if match else 0
    end = start + int(match[2]) if match else 0
    meta = _decode_meta(element[start:end])
    ref = meta.get("ref") if meta else None
    if meta is None or not isinstance(ref, str):
        ref = hashlib.sha256(element).hexdigest()
    body = element[end:] if meta else element
    return _create_own_message(meta or {}, body, queue, False), ref


def read_time(id: bytes) -> float | None:
    """Return when an entry was added to its stream, in seconds since 1970.

    :returns: ``None`` if another program chose an id that does not begin with a time.
    """
    seconds = int(id.partition(b"-")[0]) / 1000
    return seconds if seconds >= _FIRST_TIME else None


def _create_own_message(
    meta: Mapping[str, t.Any], body: bytes, queue: str, redelivered: bool
) -> Message:
    exchange, key = meta.get("exchange"), meta.get("routing_key")
    return basic_properties.read_message(
        body,
        queue=queue,
        exchange=exchange if isinstance(exchange, str) else "",
        routing_key=key if isinstance(key, str) else queue,
        redelivered=redelivered,
        properties=meta,
        headers=meta.get("headers"),
    )


def _create_foreign_message(
    pairs: Mapping[bytes, Sequence[bytes]],
    queue: str,
    body_field: str,
    redelivered: bool,
) -> Message:
    body = pairs.get(body_field.encode(), (None,))[-1]
    fields = {
        _decode_name(name): _decode_values(values) for name, values in pairs.items()
    }
    properties = {}
    if body is not None:
        properties["content_type"] = _pop_field(fields, _CONTENT_TYPES)
        properties["content_encoding"] = _pop_field(fields, _ENCODINGS)
    else:
        # In the JSON body, bytes that are not UTF-8 are escaped as in names.
        body = json.dumps(fields, default=_decode_name).encode()
    fields.pop(body_field, None)
    return basic_properties.read_message(
        body,
        queue=queue,
        exchange="",
        routing_key=queue,
        redelivered=redelivered,
        properties=properties,
        headers=fields,
    )


def _pop_field(fields: dict[str, t.Any], names: Sequence[str]) -> t.Any:
    """Remove the first existing field of ``names``, and return its value."""
    return next((fields.pop(name) for name in names if name in fields), None)


def _decode_meta(raw: bytes) -> dict[str, t.Any] | None:
    if not raw.startswith(b"{"):
        return None
    try:
        meta = decode_json(raw)
    except Exception:
        return None
    return meta if isinstance(meta, dict) else None


def _decode_name(raw: bytes) -> str:
    """Decode the name of a field; bytes that are not UTF-8 are escaped."""
    return raw.decode("utf-8", "backslashreplace")


def _decode_values(values: Sequence[bytes]) -> t.Any:
    """Decode the values of a field as a header: one value, or a list of several.

    Values that are not UTF-8 stay bytes.
    """
    if len(values) == 1:
        return _decode_text(values[0])
    return [_decode_text(value) for value in values]


def _decode_text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
