"""What is published, with any options: refused, or read as it was written."""

from __future__ import annotations

import datetime
import decimal
import typing as t

import amqp
from confluent_kafka import Message as Fetched

from flask_qconsume import TOMBSTONE
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker import properties as basic_properties
from flask_qconsume.broker.compose import OPTIONS
from flask_qconsume.broker.compose import compose
from flask_qconsume.brokers.kafka import naming
from flask_qconsume.brokers.kafka import records
from flask_qconsume.brokers.rabbitmq import incoming
from flask_qconsume.brokers.rabbitmq.amqp import frames as frames
from flask_qconsume.brokers.rabbitmq.amqp import properties as amqp_properties
from flask_qconsume.brokers.rabbitmq.pending_publish import PendingPublish
from flask_qconsume.brokers.redis_lists import envelope
from flask_qconsume.brokers.redis_streams import entries
from flask_qconsume.errors import PublishError
from flask_qconsume.errors import UnsupportedByBroker
from flask_qconsume.formats.table import BUILT_IN
from flask_qconsume.handling.payload import decode
from flask_qconsume.message import Message
from flask_qconsume.message import Outgoing

from . import values
from .taps import Taps

FRAME_MAX = 131_072


def publishing(data: bytes) -> None:
    """A message, on its way through each of the brokers."""
    taps = Taps(data)
    body = taps.pick((TOMBSTONE, *[values.anything(taps)] * 5))
    options = {taps.pick(OPTIONS): _option(taps) for _ in range(taps.number() % 5)}
    key = taps.pick(("order.created", taps.text(), values.anything(taps)))
    try:
        message = compose("shop", key, body, **options)
    except PublishError as error:
        assert str(error)
        return
    for name, carried in CARRIED.items():
        try:
            found = carried(message)
        except UnsupportedByBroker:
            continue
        check(name, message, found)
        if not message.tombstone:
            _decodes(message, found, body)


def written(data: bytes) -> None:
    """Properties as we write them, and as py-amqp does."""
    taps = Taps(data)
    given = {
        name: _property(taps)
        for name, _ in amqp.Message.PROPERTIES
        if name != "application_headers" and taps.pick((False, False, True))
    }
    given["headers"] = values.mapping(taps)
    table = {**given, "application_headers": given["headers"] or None}
    assert _bytes(lambda: amqp_properties.encode_properties(given)) == _bytes(
        lambda: amqp.Message(b"", **table)._serialize_properties()
    )


def _property(taps: Taps) -> t.Any:
    return taps.pick((taps.text(), taps.number(), taps.number(8), None, taps.piece()))


def _bytes(write: t.Callable[[], bytes]) -> bytes | None:
    try:
        return write()
    except Exception:
        return None


def _option(taps: Taps) -> t.Any:
    choices = (
        values.mapping(taps),
        *(taps.number(), taps.text(), "application/json", "text/plain"),
        *("text/plain; charset=utf-16", "application/msgpack", values.anything(taps)),
    )
    return taps.pick(choices)


def check(broker: str, message: Outgoing, found: Message) -> None:
    """What arrived is what was sent."""
    assert (found.raw, found.id, found.key) == (message.body, message.id, message.key)
    assert found.tombstone == (message.tombstone and broker == "kafka")
    assert (found.exchange, found.routing_key) == (
        message.exchange,
        message.routing_key,
    )
    types = found.content_type, found.content_encoding
    assert types == (message.content_type, message.content_encoding)
    assert broker == "kafka" or found.priority == message.priority
    if "__type__" in repr(message.headers):
        return  # kombu's JSON would take it for what it writes itself.
    for name, value in message.headers.items():
        if name.startswith(own_headers.PREFIX) or name == "redelivered":
            continue
        assert _shown(found.headers[name]) == _shown(ROUGHLY[broker](value)), name


def _shown(value: t.Any) -> str:
    """A value and its type; what UTC is called depends on the Python."""
    return repr(value).replace("tzinfo=UTC)", "tzinfo=datetime.timezone.utc)")


def _decodes(message: Outgoing, found: Message, body: t.Any) -> None:
    """A body that we wrote is one that we read."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return
    if "compression" in message.headers:
        return
    if BUILT_IN.find(message.content_type or "") is not None:
        decode(found, BUILT_IN.decoders(), 2**31)


def _by_rabbitmq(message: Outgoing) -> Message:
    pending = PendingPublish(
        basic_properties.encode_outgoing(message),
        message.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
    )
    _, header, *body = (
        frames.parse_frame_at(each, 0)[2] for each in pending.build_frames(1, FRAME_MAX)
    )
    names = message.exchange, message.routing_key
    found = frames.BasicDeliver("tag", 1, False, *names, header, b"".join(body), 0)
    return incoming.convert_delivery(found, "q")


def _by_redis(message: Outgoing) -> Message:
    element = envelope.encode_envelope(
        basic_properties.encode_outgoing(message),
        message.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
    )
    return envelope.read_element(element, "q")


def _by_streams(message: Outgoing) -> Message:
    entry = entries.encode_entry(
        basic_properties.encode_outgoing(message),
        message.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
    )
    fields = (b"body", entry.body, entries.META.encode(), entry.meta)
    return entries.read_entry(fields, "q", "body")


def _by_kafka(message: Outgoing) -> Message:
    if message.exchange not in ("", "shop"):
        raise UnsupportedByBroker()
    queue = naming.retry_topic(message.routing_key, 0)
    record = records.create_record(
        message, message.routing_key if message.exchange else queue
    )
    fetched = Fetched(
        topic=record.topic,
        partition=0,
        offset=0,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
        timestamp=(1, record.timestamp),
    )
    return records.read_record(fetched, "q", redelivered=False, exchange="shop")


CARRIED = {
    "rabbitmq": _by_rabbitmq,
    "redis": _by_redis,
    "redis-streams": _by_streams,
    "kafka": _by_kafka,
}


def _in_amqp(value: t.Any) -> t.Any:
    """Texts and bytes are one there; times have whole seconds, decimals no zeros."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, datetime.datetime):
        return datetime.datetime(*value.utctimetuple()[:6])
    if isinstance(value, decimal.Decimal):
        digits, places = value.as_tuple()[1:]
        number = int(value.scaleb(-places)) if digits else 0
        return decimal.Decimal(number) / decimal.Decimal(10**-places)
    return _within(value, _in_amqp)


def _in_json(value: t.Any) -> t.Any:
    """A sequence is a list there."""
    return _within(value, _in_json)


def _within(value: t.Any, kind: t.Callable[[t.Any], t.Any]) -> t.Any:
    if isinstance(value, (list, tuple)):
        return [kind(each) for each in value]
    if isinstance(value, dict):
        return {name: kind(each) for name, each in value.items()}
    return value


ROUGHLY: dict[str, t.Callable[[t.Any], t.Any]] = {
    "rabbitmq": _in_amqp,
    "redis": _in_json,
    "redis-streams": _in_json,
    "kafka": _in_json,
}
