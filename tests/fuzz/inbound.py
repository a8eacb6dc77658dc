"""What lies in brokers, read into messages: whatever it is, it becomes one.

And such a message can be copied, for a retry or as a dead letter: one that could not
would be tried for ever.
"""

from __future__ import annotations

import json
import struct
import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

from confluent_kafka import Message as Fetched

from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker import properties as basic_properties
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.brokers.kafka import records
from flask_qconsume.brokers.rabbitmq import forwarding
from flask_qconsume.brokers.rabbitmq import incoming
from flask_qconsume.brokers.rabbitmq.amqp import frames as frames
from flask_qconsume.brokers.rabbitmq.pending_publish import PendingPublish
from flask_qconsume.brokers.redis_lists import envelope
from flask_qconsume.brokers.redis_streams import entries
from flask_qconsume.errors import UndecodableMessage
from flask_qconsume.message import Message

from . import streams
from . import values
from .taps import Taps

QUEUE = "q"
FRAME_MAX = 4096

Copied = Callable[[Message, Mapping[str, t.Any]], Message]


def rabbitmq(data: bytes) -> None:
    """A delivery with any properties."""
    taps = Taps(data)
    names = [taps.text() for _ in range(2)]
    header = struct.pack(">HHQ", 60, 0, 1) + streams.properties(taps)
    found = frames.BasicDeliver("tag", 1, False, *names, header, taps.piece(), 0)
    _check(incoming.convert_delivery(found, QUEUE), _by_rabbitmq)


def redis(data: bytes) -> None:
    """An element of a list."""
    taps = Taps(data)
    element = _element(taps)
    message = envelope.read_element(element, QUEUE)
    _check(message, _by_redis)
    assert envelope.read_reference(element) == envelope.read_reference(element)
    marked = envelope.read_element(envelope.mark_redelivered(element, QUEUE), QUEUE)
    assert (marked.raw, marked.id, marked.redelivered) == (
        message.raw,
        message.id,
        True,
    )


def redis_streams(data: bytes) -> None:
    """An entry of a stream, and a member of a sorted set."""
    taps = Taps(data)
    fields = list(_fields(taps))
    message = entries.read_entry(fields, QUEUE, "body", taps.pick((False, True)))
    _check(message, _by_streams)
    member = taps.rest()
    found, ref = entries.unpack_member(member, QUEUE)
    assert (found.raw, ref) == (entries.unpack_member(member, QUEUE)[0].raw, ref)
    _check(found, _by_streams)


def kafka(data: bytes) -> None:
    """A record."""
    taps = Taps(data)
    headers = [(values.name(taps), _header(taps)) for _ in range(taps.number() % 6)]
    record = Fetched(
        topic="t",
        partition=0,
        offset=taps.number(),
        key=taps.pick((None, taps.piece())),
        value=taps.pick((None, taps.piece())),
        headers=headers,
        timestamp=(taps.pick((0, 1, 2)), taps.number(8) - 2**63),
    )
    assert 0 <= records.read_due_time(record) <= 2**53
    message = records.read_record(record, QUEUE, redelivered=False, exchange="e")
    assert isinstance(records.create_dead_letter_key(message), bytes)
    _check(message, _by_kafka)


def _element(taps: Taps) -> bytes:
    if taps.pick((True, False, False)):
        return taps.rest()
    properties = {"delivery_tag": "t", **values.mapping(taps)}
    found = {
        "body": taps.text(),
        "content-type": values.plain(taps),
        "headers": taps.pick((values.mapping, values.plain))(taps),
        "properties": {**properties, "body_encoding": taps.pick(_ENCODINGS)},
    }
    return _json(found)


_ENCODINGS = ("base64", "utf-8", None, "x")


def _fields(taps: Taps) -> Iterator[bytes]:
    if taps.pick((True, True, False)):
        meta = {**values.mapping(taps), "headers": values.plain(taps)}
        raw = _json(meta) if taps.pick((True, True, False)) else taps.piece()
        yield from (b"body", taps.piece(), b"x-qconsume", raw)
        return
    for _ in range(taps.number() % 5):
        yield taps.pick((b"body", b"content_type", b"x", taps.piece()))
        yield taps.piece()


def _header(taps: Taps) -> bytes | None:
    return taps.pick((None, taps.piece(), _json(values.value(taps))))


def _json(value: t.Any) -> bytes:
    try:
        return json.dumps(value, default=str, skipkeys=True).encode()
    except ValueError:
        return b'{"a number of too many digits": %s}' % (b"9" * 4_400)


def _check(message: Message, copied: Copied) -> None:
    """It is a message as handlers know it, and its copies come back as it was."""
    assert isinstance(message.raw, bytes)
    assert all(isinstance(name, str) for name in message.headers)
    assert all(isinstance(each, (str, type(None))) for each in _texts(message))
    assert type(message.attempt) is int and message.attempt >= 1
    assert type(message.deaths) is int and message.deaths >= 0
    again = copied(
        message, own_headers.make_retry_headers(message, message.attempt + 1)
    )
    _same(message, again)
    assert again.attempt == min(message.attempt + 1, 1_000_000)
    error = UndecodableMessage("no")
    dead = copied(
        message,
        own_headers.make_dead_letter_headers(message, "c", QUEUE, "why", error, 1.0),
    )
    _same(message, dead)
    assert dead.headers[own_headers.REASON] == "why"
    _same(message, copied(message, own_headers.make_replay_headers(dead.headers)))


def _texts(message: Message) -> tuple[str | None, ...]:
    types = message.content_type, message.content_encoding
    return message.id, message.exchange, message.routing_key, message.key, *types


def _same(message: Message, copy: Message) -> None:
    assert copy.raw == message.raw
    assert copy.tombstone == message.tombstone
    assert copy.key == message.key
    for one, other in zip(_texts(message), _texts(copy), strict=True):
        assert _written(one) in (None, other)


def _written(text: str | None) -> str | None:
    """What is left of a text where surrogates and what is long must be changed."""
    return text if text and text.isprintable() and len(text) < 60 else None


def _by_rabbitmq(message: Message, headers: Mapping[str, t.Any]) -> Message:
    delivery = Delivery(t.cast(t.Any, None), 1, message)
    plan = QueuePlan(QUEUE, "c", "quorum", ())
    pending = forwarding.build_forward(
        Forward(delivery, Lane.SUSPECTS, headers), plan, "e", FRAME_MAX
    )
    return _read_back(pending)


def _read_back(pending: PendingPublish) -> Message:
    written = pending.build_frames(1, FRAME_MAX)
    header = frames.parse_frame_at(written[1], 0)[2]
    assert len(written[1]) <= FRAME_MAX
    body = b"".join(frames.parse_frame_at(each, 0)[2] for each in written[2:])
    found = frames.BasicDeliver(
        "tag", 1, False, "", pending.routing_key, header, body, 0
    )
    return incoming.convert_delivery(found, QUEUE)


def _by_redis(message: Message, headers: Mapping[str, t.Any]) -> Message:
    properties = basic_properties.encode_copy(message, headers)
    sealed = envelope.encode_envelope(
        properties, message.raw, exchange="", routing_key=QUEUE
    )
    return envelope.read_element(sealed, QUEUE)


def _by_streams(message: Message, headers: Mapping[str, t.Any]) -> Message:
    properties = basic_properties.encode_copy(message, headers)
    entry = entries.encode_entry(
        properties, message.raw, exchange="", routing_key=QUEUE
    )
    packed, _ = entries.unpack_member(entry.pack(0), QUEUE)
    assert packed.raw == entry.body
    fields = (b"body", entry.body, b"x-qconsume", entry.meta)
    return entries.read_entry(fields, QUEUE, "body")


def _by_kafka(message: Message, headers: Mapping[str, t.Any]) -> Message:
    dead = (
        records.create_dead_letter_key(message)
        if own_headers.REASON in headers
        else None
    )
    record = records.create_copy(message, headers, "elsewhere", key=dead, due=1.5)
    fetched = Fetched(
        topic=record.topic,
        partition=0,
        offset=0,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
        timestamp=(1, record.timestamp),
    )
    assert records.read_due_time(fetched) == 1.5
    return records.read_record(fetched, QUEUE, redelivered=False, exchange="e")
