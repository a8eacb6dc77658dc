"""Conversion of Kafka records to messages, and of messages to records. No I/O.

There is no envelope: a record's value is the message's body, and its key the message's
key. Properties are headers with their usual names (``content-type``, ``message-id``,
…). Header values are UTF-8 text. Other values are written as JSON or bytes, and two
headers list the names of these headers, so that their types are restored here, and
other programs can read them.
"""

from __future__ import annotations

import json
import operator
import re
import typing as t
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker import headers as own_headers
from ...broker import kombu_json
from ...errors import UnsupportedByBroker
from ...handling.payload import UNREADABLE
from ...message import Message
from ...message import Outgoing
from ...message import create_message
from ...text import quote
from . import naming
from .client.producer import ProducerRecord

#: When a record may be handed out, in milliseconds since 1970.
DUE = own_headers.PREFIX + "due"
#: JSON lists of names: of headers with JSON values, and of headers with bytes that
#: would otherwise be read as text.
AS_JSON = own_headers.PREFIX + "json"
AS_BYTES = own_headers.PREFIX + "bytes"

_PROPERTIES = {
    "message-id": "id",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
}
_RARE_PROPERTIES = {
    "correlation-id": "correlation_id",
    "reply-to": "reply_to",
    own_headers.PREFIX + "amqp-type": "type",
    own_headers.PREFIX + "amqp-app-id": "app_id",
    own_headers.PREFIX + "amqp-cluster-id": "cluster_id",
    own_headers.PREFIX + "amqp-user-id": "user_id",
    own_headers.PREFIX + "amqp-priority": "priority",
    own_headers.PREFIX + "amqp-expiration": "expiration",
}
_HEADER_OF = {name: header for header, name in _RARE_PROPERTIES.items()}
#: Names that a publisher cannot use for headers of its own.
RESERVED = frozenset((*_PROPERTIES, *_RARE_PROPERTIES))

#: Headers that few messages have.
_RARE = frozenset(
    (
        *_RARE_PROPERTIES,
        *(DUE, AS_JSON, AS_BYTES),
        *(own_headers.EXCHANGE, own_headers.ROUTING_KEY),
        *(
            own_headers.KEY,
            own_headers.ATTEMPT,
            own_headers.DEATHS,
            own_headers.PUBLISHED_AT,
            own_headers.EXPIRES_AT,
        ),
    )
)

#: The property with the bytes of a key that is not UTF-8; the message's key is escaped.
RAW_KEY = "raw_key"

#: The properties that identify a record.
_PLACE = ("topic", "partition", "offset")

#: ``record.headers()``, called so that an error is always raised. If a name is not
#: UTF-8, the client returns a list *and* sets an error. CPython 3.11 and later raise a
#: `SystemError` for that, but a call that runs often is specialized and does not check:
#: the caller would get the list, and reading it crashes the process.
_call_headers = operator.methodcaller("headers")

Header = tuple[str, bytes | None]
#: A :class:`confluent_kafka.Message`, of which the client types each part as optional.
Fetched = t.Any


def read_record(
    record: Fetched,
    queue: str,
    *,
    redelivered: bool,
    exchange: str = "",
    prefix: str = "",
    attempt: int | None = None,
    deaths: int | None = None,
) -> Message:
    """Convert a Kafka record to a message.

    :param exchange: The message's exchange, unless a header of the record tells it.
    :param prefix: The app's queue prefix, which topics have and routing keys do not.
    :param attempt: The attempt's number, in place of that in the record's headers.
    :param deaths: The number of deaths, in place of that in the record's headers.
    """
    topic, value, key = record.topic(), record.value(), record.key()
    kind, stamp = record.timestamp()
    fields: dict[str, t.Any] = {
        "raw": b"" if value is None else value,
        "queue": queue,
        "headers": {},
        "exchange": exchange,
        "routing_key": topic.removeprefix(prefix),
        "timestamp": stamp / 1_000 if kind and stamp >= 0 else None,
        "redelivered": redelivered,
        "properties": {
            "topic": topic,
            "partition": record.partition(),
            "offset": record.offset(),
        },
    }
    if key is not None:
        _read_key(key, fields)
    if value is None:
        fields["tombstone"] = True
    headers = read_headers(record)
    if headers:
        _apply_headers(headers, fields)
    if attempt is not None:
        fields["attempt"] = attempt
    if deaths is not None:
        fields["deaths"] = deaths
    return create_message(fields)


def create_record(
    message: Outgoing, topic: str, *, prefix: str = "", due: float | None = None
) -> ProducerRecord:
    """Create the Kafka record for a message that the app publishes.

    :param prefix: The app's queue prefix, which topics have and routing keys do not.
    :param due: When the record may be handed out, in seconds since 1970; ``None`` means
        at once.
    :raises UnsupportedByBroker: if a header has the name of a message property.
    """
    for name in RESERVED.intersection(message.headers):
        raise UnsupportedByBroker(
            f"The header {quote(name)} cannot be set on Kafka, where a property of the"
            " message has that name: give the property to 'publish' instead."
        )
    headers = dict(message.headers)
    if topic == prefix + message.routing_key:
        # The topic tells both; only kombu's transport has several exchanges.
        told = own_headers.read_text(headers, own_headers.ROUTING_KEY)
        if told == message.routing_key or not naming.is_named_after(topic, told):
            headers.pop(own_headers.ROUTING_KEY, None)
        if headers.get(own_headers.EXCHANGE) == message.exchange:
            del headers[own_headers.EXCHANGE]
    else:
        headers.setdefault(own_headers.EXCHANGE, message.exchange)
        headers.setdefault(own_headers.ROUTING_KEY, message.routing_key)
    if message.expires is not None:
        begins = (message.timestamp or 0.0) + message.delay
        headers[own_headers.EXPIRES_AT] = begins + message.expires
    written = [
        *_write_properties(message, message.properties),
        *_write_headers(headers),
    ]
    stamp = message.timestamp
    if due is not None:
        written.append((DUE, b"%d" % round(due * 1_000)))
    return ProducerRecord(
        topic=topic,
        value=None if message.tombstone else message.body,
        key=_encode_key(message),
        headers=tuple(written),
        timestamp=0 if stamp is None else round(stamp * 1_000),
    )


def create_copy(
    message: Message,
    headers: Mapping[str, t.Any],
    topic: str,
    *,
    due: float | None = None,
    key: bytes | None = None,
) -> ProducerRecord:
    """Create the Kafka record for a copy of a message that has other headers.

    The record's timestamp is the current time, from which Kafka's retention counts.

    :param key: Replaces the message's own key, which is then stored in a header.
    """
    copied_headers = dict(headers)
    if message.timestamp is not None:
        copied_headers.setdefault(own_headers.PUBLISHED_AT, message.timestamp)
    written = [
        *_write_properties(message, message.properties),
        *_write_headers(copied_headers, lenient=True),
    ]
    if key is not None:
        # The header without a value tells that there was no key.
        written.append((own_headers.KEY, _encode_key(message)))
    if due is not None:
        written.append((DUE, b"%d" % round(due * 1_000)))
    return ProducerRecord(
        topic=topic,
        value=None if message.tombstone else message.raw,
        key=_encode_key(message) if key is None else key,
        headers=tuple(written),
    )


def create_dead_letter_key(message: Message) -> bytes:
    """Return the key of a dead letter's record, the same for all copies of it.

    The key consists of the message's id and the topic, partition and offset of the
    failed record. A message that is replayed and fails again is another record, with
    another key.
    """
    failed_record = "/".join(str(message.properties.get(name, "")) for name in _PLACE)
    return f"{message.id or ''}@{failed_record}".encode("utf-8", "backslashreplace")


def read_headers(record: Fetched) -> list[Header] | None:
    """Return a record's headers; a special header, if they cannot be read.

    If a header's name is not UTF-8, the client raises an error at the first call and
    returns a list that crashes the process at the next call. So unreadable headers are
    replaced in the record.
    """
    try:
        return t.cast("list[Header] | None", _call_headers(record))
    except Exception:
        problem = b"the name of a header is not UTF-8"
        record.set_headers([(UNREADABLE, problem)])
        return t.cast("list[Header]", record.headers())


def read_due_time(record: Fetched) -> float:
    """Return the time when a record is due, in seconds since 1970; 0 for at once."""
    for name, value in read_headers(record) or ():
        if name == DUE:
            return _parse_milliseconds(value) / 1_000
    return 0.0


def _parse_milliseconds(value: bytes | None) -> int:
    # A value that is no number must not hold back the records behind this one.
    try:
        return min(max(int(value or b"0"), 0), 2**53)
    except ValueError:
        return 0


def _apply_headers(record_headers: Sequence[Header], fields: dict[str, t.Any]) -> None:
    """Set a message's fields from the headers of its record.

    This runs for every record, so rare headers are handled only if there are any.
    """
    headers: dict[str, t.Any] = fields["headers"]
    header_value: t.Any
    rare, property_count = False, 0
    for name, value in record_headers:
        try:
            header_value = None if value is None else value.decode()
        except UnicodeDecodeError:
            header_value = value
        if name in _PROPERTIES:
            property_count += 1
            if header_value and isinstance(header_value, str):
                fields[_PROPERTIES[name]] = header_value
            continue
        headers[name] = header_value
        rare = rare or name in _RARE
    if len(headers) + property_count < len(record_headers):
        _read_repeated(record_headers, headers)
    if rare:
        _read_rare(headers, fields)


def _read_repeated(record_headers: Sequence[Header], headers: dict[str, t.Any]) -> None:
    """Set the value of each repeated header to a list of its values.

    For properties and this package's own headers, only the last value is stored.
    """
    values: dict[str, list[t.Any]] = {}
    for name, value in record_headers:
        values.setdefault(name, []).append(_decode(value))
    for name, several in values.items():
        is_foreign_header = name not in RESERVED and not name.startswith(
            own_headers.PREFIX
        )
        if is_foreign_header and len(several) > 1:
            headers[name] = several


def _decode(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _read_rare(headers: dict[str, t.Any], fields: dict[str, t.Any]) -> None:
    """Set fields from headers that few messages have."""
    headers.pop(DUE, None)
    if own_headers.KEY in headers:
        _read_key(headers.pop(own_headers.KEY), fields)
    _restore_types(headers)
    for header, name in _RARE_PROPERTIES.items():
        if header in headers:
            fields["properties"][name] = headers.pop(header)
    fields["priority"] = _parse_priority(fields["properties"].pop("priority", None))
    for header, name in (
        (own_headers.EXCHANGE, "exchange"),
        (own_headers.ROUTING_KEY, "routing_key"),
    ):
        text = own_headers.read_text(headers, header)
        if text is not None:
            fields[name] = text
    fields["attempt"] = own_headers.read_int(headers, own_headers.ATTEMPT, 1)
    fields["deaths"] = own_headers.read_int(headers, own_headers.DEATHS, 0)
    published_at = own_headers.read_time(headers, own_headers.PUBLISHED_AT)
    fields["timestamp"] = published_at or fields["timestamp"]
    fields["expires_at"] = own_headers.read_time(headers, own_headers.EXPIRES_AT)


def _parse_priority(text: t.Any) -> int | None:
    is_number = isinstance(text, str) and re.fullmatch("[0-9]{1,3}", text)
    return min(int(text), 255) if is_number else None


def _restore_types(headers: dict[str, t.Any]) -> None:
    """Decode the values of headers that were written as JSON or bytes."""
    for name in _read_names(headers.pop(AS_JSON, None)):
        if isinstance(headers.get(name), str):
            headers[name] = _parse_json(headers[name])
    for name in _read_names(headers.pop(AS_BYTES, None)):
        if isinstance(headers.get(name), str):
            headers[name] = headers[name].encode()


def _read_names(text: t.Any) -> Iterable[str]:
    """Parse the names in a header that lists other headers; drop repeated names.

    A name that is repeated many times would make the reader parse one value many times,
    which may take long.
    """
    header_names = _parse_json(text) if isinstance(text, str) else None
    if not isinstance(header_names, list):
        return ()
    return dict.fromkeys(name for name in header_names if isinstance(name, str))


def _parse_json(text: str) -> t.Any:
    try:
        return kombu_json.decode(text)
    except Exception:
        return text


def _write_headers(
    headers: Mapping[str, t.Any], *, lenient: bool = False
) -> list[Header]:
    """Encode headers for a record.

    :param lenient: Whether to leave out values that cannot be encoded, and list their
        names in a header.
    :raises TypeError: if a value cannot be encoded, and ``lenient`` is false.
    """
    written: list[Header] = []
    as_json: list[str] = []
    as_bytes: list[str] = []
    lost: list[str] = []
    for name, value in headers.items():
        if isinstance(value, str):
            written.append((name, value.encode("utf-8", "backslashreplace")))
        elif value is None:
            written.append((name, None))
        elif isinstance(value, (bytes, bytearray)):
            written.append((name, bytes(value)))
            as_bytes.append(name)
        elif (text := _encode_json(value, lenient)) is None:
            lost.append(name)
        else:
            written.append((name, text))
            as_json.append(name)
    if lost:
        written.append(
            (own_headers.CHANGED, ", ".join(lost).encode()[: own_headers.MAX_ERROR])
        )
    if as_json:
        written.append((AS_JSON, json.dumps(as_json).encode()))
    if as_bytes:
        written.append((AS_BYTES, json.dumps(as_bytes).encode()))
    return written


def _encode_json(value: t.Any, lenient: bool) -> bytes | None:
    """Encode a value as JSON; return ``None`` if it is nested too deeply.

    :param lenient: Whether to return ``None`` for any other error too.
    """
    try:
        return kombu_json.encode(value).encode()
    except RecursionError:
        return None
    except Exception:
        # A hook may have set any value, and a copy must not fail because of it.
        if lenient:
            return None
        raise


def _write_properties(
    message: Message | Outgoing, further: Mapping[str, t.Any]
) -> t.Iterator[Header]:
    for header, name in _PROPERTIES.items():
        value = getattr(message, name)
        if value is not None:
            yield header, value.encode("utf-8", "backslashreplace")
    for name, value in further.items():
        if name in _HEADER_OF and value is not None:
            yield _HEADER_OF[name], _to_bytes(value)
    if message.priority is not None:
        yield _HEADER_OF["priority"], _to_bytes(message.priority)


def _to_bytes(value: t.Any) -> bytes:
    """Encode the value of a property for a header; leave bytes unchanged."""
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "backslashreplace")


def _read_key(key: t.Any, fields: dict[str, t.Any]) -> None:
    """Set the key of a message from the key of its record.

    A key that is not UTF-8 is escaped; its bytes are kept for copies of the message.
    """
    if isinstance(key, bytes):
        try:
            key = key.decode()
        except UnicodeDecodeError:
            fields["properties"][RAW_KEY] = key
            key = key.decode("utf-8", "backslashreplace")
    fields["key"] = key


def _encode_key(message: Message | Outgoing) -> bytes | None:
    key = message.properties.get(RAW_KEY, message.key)
    return key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
