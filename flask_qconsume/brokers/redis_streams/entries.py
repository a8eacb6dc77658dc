"""Entries of a stream, read into messages and written for them. No I/O.

An entry of ours has two fields: the body as it is, and :data:`META`, which holds the
properties as JSON. Any other entry is a foreign message: its fields are its headers,
and one of them is its body. If it has no such field, the body is a JSON object of all
fields. Reading an entry never fails.

Where an entry is to lie in a sorted set, it is packed: ``step:length:meta body``.
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

#: The field that tells an entry of ours.
META = "x-qconsume"
_META = META.encode()

_CONTENT_TYPES = ("content_type", "content-type", "Content-Type")
_ENCODINGS = ("content_encoding", "content-encoding", "Content-Encoding")
_PACKED = re.compile(rb"(\d{1,9}):(\d{1,9}):")


@dataclass(frozen=True)
class Entry:
    """An entry of ours, to be written."""

    meta: bytes
    body: bytes

    def pack(self, step: int) -> bytes:
        """The entry as it lies in a sorted set.

        That knows each member once: a "ref" tells apart what is else the same.
        """
        ref = str(uuid.uuid4()).encode()
        meta = b'%s, "ref": "%s"}' % (self.meta.removesuffix(b"}"), ref)
        return b"%d:%d:%s%s" % (step, len(meta), meta, self.body)


def encode_entry(
    properties: Mapping[str, t.Any], body: bytes, *, exchange: str, routing_key: str
) -> Entry:
    """An entry for a message.

    :param properties: AMQP's basic properties by name, ``headers`` among them.
    :raises PublishRefused: if there is something in them that JSON cannot hold.
    """
    meta = {**properties, "exchange": exchange, "routing_key": routing_key}
    return Entry(encode_json(meta), body)


def read_entry(
    fields: Sequence[bytes], queue: str, body_field: str, redelivered: bool = False
) -> Message:
    """The message in an entry, given as names and values in turn."""
    # Ours are looked for in their place only: it is what a reader does most.
    if len(fields) == 4 and fields[2] == _META:
        try:
            meta = _meta(fields[3])
            if meta is not None:
                return _ours(meta, fields[1], queue, redelivered)
        except Exception:
            pass  # Nonsense inside: it is not ours.
    pairs: dict[bytes, list[bytes]] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        pairs.setdefault(name, []).append(value)
    return _foreign(pairs, queue, body_field, redelivered)


def split_entries(
    heads: bytes, texts: bytes
) -> Iterator[tuple[str, list[bytes], bool]]:
    """The tags, fields and marks of the entries that the script gives as two texts."""
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
    """The message that is packed in a member of a sorted set, and its ``ref``."""
    found = _PACKED.match(element)
    start = found.end() if found else 0
    end = start + int(found[2]) if found else 0
    meta = _meta(element[start:end])
    ref = meta.get("ref") if meta else None
    if meta is None or not isinstance(ref, str):
        ref = hashlib.sha256(element).hexdigest()
    return _ours(meta or {}, element[end:] if meta else element, queue, False), ref


def _ours(
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


def _foreign(
    pairs: Mapping[bytes, Sequence[bytes]],
    queue: str,
    body_field: str,
    redelivered: bool,
) -> Message:
    body = pairs.get(body_field.encode(), (None,))[-1]
    fields = {_name(name): _value(values) for name, values in pairs.items()}
    properties = {}
    if body is not None:
        properties["content_type"] = _taken(fields, _CONTENT_TYPES)
        properties["content_encoding"] = _taken(fields, _ENCODINGS)
    else:
        # Bytes that are not UTF-8 are escaped as in names.
        body = json.dumps(fields, default=_name).encode()
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


def _taken(fields: dict[str, t.Any], names: Sequence[str]) -> t.Any:
    """The field of one of these names, which is no header then."""
    return next((fields.pop(name) for name in names if name in fields), None)


def _meta(raw: bytes) -> dict[str, t.Any] | None:
    if not raw.startswith(b"{"):
        return None
    try:
        found = decode_json(raw)
    except Exception:
        return None
    return found if isinstance(found, dict) else None


def _name(raw: bytes) -> str:
    """The name of a field; bytes that are not UTF-8 are escaped."""
    return raw.decode("utf-8", "backslashreplace")


def _value(values: Sequence[bytes]) -> t.Any:
    """The value of a field as a header: a list where a name stands several times.

    Bytes that are not UTF-8 stay bytes, which every broker can hold in a header.
    """
    if len(values) == 1:
        return _decoded(values[0])
    return [_decoded(value) for value in values]


def _decoded(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
