"""Kafka's records, read into messages and written for them. No I/O.

There is no envelope: a record's value is the body, its key the key. Properties are
headers of their usual names (``content-type``, ``message-id``, …). Headers are texts
in UTF-8; other values are written as JSON, and two headers of ours tell which, so that
they come back as they were, and other programs can read them.
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
#: The names of headers whose values are JSON, and of those that are bytes though they
#: could be read as text; each a list in JSON.
AS_JSON = own_headers.PREFIX + "json"
AS_BYTES = own_headers.PREFIX + "bytes"

_PROPERTIES = {
    "message-id": "id",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
}
_FURTHER = {
    "correlation-id": "correlation_id",
    "reply-to": "reply_to",
    own_headers.PREFIX + "amqp-type": "type",
    own_headers.PREFIX + "amqp-app-id": "app_id",
    own_headers.PREFIX + "amqp-cluster-id": "cluster_id",
    own_headers.PREFIX + "amqp-user-id": "user_id",
    own_headers.PREFIX + "amqp-priority": "priority",
    own_headers.PREFIX + "amqp-expiration": "expiration",
}
_HEADER_OF = {name: header for header, name in _FURTHER.items()}
#: What a publisher cannot use for headers of its own.
RESERVED = frozenset((*_PROPERTIES, *_FURTHER))

#: What few messages have.
_RARE = frozenset(
    (
        *_FURTHER,
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

#: The property that has a key that is not UTF-8, as bytes; the key itself is escaped.
RAW_KEY = "raw_key"

#: Where a record lies, among a message's properties.
_PLACE = ("topic", "partition", "offset")

#: ``record.headers()``, but always looked at for an error. The client returns a list
#: *and* sets an error where a name is no UTF-8; CPython (3.11 and up) tells that as a
#: `SystemError`, unless it has specialized the call, as it does where one is frequent:
#: then the list, which crashes whoever reads it, would be taken for good.
_asked_for_headers = operator.methodcaller("headers")

Header = tuple[str, bytes | None]
#: A :class:`confluent_kafka.Message`, of which the client types each part as optional.
Fetched = t.Any


def incoming(
    record: Fetched,
    queue: str,
    *,
    redelivered: bool,
    exchange: str = "",
    prefix: str = "",
    attempt: int | None = None,
    deaths: int | None = None,
) -> Message:
    """A message as it was fetched.

    :param exchange: Where what is in topics was published to, if it does not say.
    :param prefix: What the app's topics begin with, and their routing keys do not.
    :param attempt: Known better than what its headers say.
    :param deaths: Likewise.
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
    headers = headers_of(record)
    if headers:
        _read(headers, fields)
    if attempt is not None:
        fields["attempt"] = attempt
    if deaths is not None:
        fields["deaths"] = deaths
    return create_message(fields)


def outgoing(
    message: Outgoing, topic: str, *, prefix: str = "", due: float | None = None
) -> ProducerRecord:
    """The record for a message that is published.

    :param prefix: What the app's topics begin with, and their routing keys do not.
    :param due: When it is to be handed out, in seconds since 1970, if not at once.
    :raises UnsupportedByBroker: for a header that has the name of a property.
    """
    for name in RESERVED.intersection(message.headers):
        raise UnsupportedByBroker(
            f"The header {quote(name)} cannot be set on Kafka, where a property of the"
            " message has that name: give the property to 'publish' instead."
        )
    headers = dict(message.headers)
    if topic == prefix + message.routing_key:
        # The topic says as much, and there is but one exchange (kombu has others).
        told = own_headers.read_text(headers, own_headers.ROUTING_KEY)
        if told == message.routing_key or not naming.stands_for(topic, told):
            headers.pop(own_headers.ROUTING_KEY, None)
        if headers.get(own_headers.EXCHANGE) == message.exchange:
            del headers[own_headers.EXCHANGE]
    else:
        headers.setdefault(own_headers.EXCHANGE, message.exchange)
        headers.setdefault(own_headers.ROUTING_KEY, message.routing_key)
    if message.expires is not None:
        begins = (message.timestamp or 0.0) + message.delay
        headers[own_headers.EXPIRES_AT] = begins + message.expires
    written = [*_properties(message, message.properties), *_written(headers)]
    stamp = message.timestamp
    if due is not None:
        written.append((DUE, b"%d" % round(due * 1_000)))
    return ProducerRecord(
        topic=topic,
        value=None if message.tombstone else message.body,
        key=_key_of(message),
        headers=tuple(written),
        timestamp=0 if stamp is None else round(stamp * 1_000),
    )


def copied(
    message: Message,
    headers: Mapping[str, t.Any],
    topic: str,
    *,
    due: float | None = None,
    key: bytes | None = None,
) -> ProducerRecord:
    """The record of a copy of a message, with other headers.

    Its own time is now, since that is what Kafka's retention counts from.

    :param key: Instead of the message's own, which becomes a header then.
    """
    kept = dict(headers)
    if message.timestamp is not None:
        kept.setdefault(own_headers.PUBLISHED_AT, message.timestamp)
    written = [
        *_properties(message, message.properties),
        *_written(kept, lenient=True),
    ]
    if key is not None:
        # Without a value it says that there was none.
        written.append((own_headers.KEY, _key_of(message)))
    if due is not None:
        written.append((DUE, b"%d" % round(due * 1_000)))
    return ProducerRecord(
        topic=topic,
        value=None if message.tombstone else message.raw,
        key=_key_of(message) if key is None else key,
        headers=tuple(written),
    )


def dead_key(message: Message) -> bytes:
    """What a dead letter is known by in its topic.

    The same for each copy of one record, and another one for what died again later.
    """
    place = "/".join(str(message.properties.get(name, "")) for name in _PLACE)
    return f"{message.id or ''}@{place}".encode("utf-8", "backslashreplace")


def headers_of(record: Fetched) -> list[Header] | None:
    """The headers of a record, or the one that says that they cannot be read.

    Where a name is no UTF-8, the client raises the first time that it is asked, and
    after that gives a list that crashes the process: it must not be asked again.
    """
    try:
        return t.cast("list[Header] | None", _asked_for_headers(record))
    except Exception:
        problem = b"the name of a header is no UTF-8"
        record.set_headers([(UNREADABLE, problem)])
        return t.cast("list[Header]", record.headers())


def due(record: Fetched) -> float:
    """When a record may be handed out, in seconds since 1970; 0 if at once."""
    for name, value in headers_of(record) or ():
        if name == DUE:
            return _milliseconds(value) / 1_000
    return 0.0


def is_delayed(topic: str) -> bool:
    """Whether the records of a topic have to wait until they are due."""
    return naming.holds_back(topic)


def _milliseconds(value: bytes | None) -> int:
    # Nonsense that somebody else wrote there must not hold back what is behind it.
    try:
        return min(max(int(value or b"0"), 0), 2**53)
    except ValueError:
        return 0


def _read(found: Sequence[Header], fields: dict[str, t.Any]) -> None:
    """Headers as they were given to the publisher.

    This is done for every record: what is rare is looked for only where it may be.
    """
    headers: dict[str, t.Any] = fields["headers"]
    given: t.Any
    rare, known = False, 0
    for name, value in found:
        try:
            given = None if value is None else value.decode()
        except UnicodeDecodeError:
            given = value
        if name in _PROPERTIES:
            known += 1
            if given and isinstance(given, str):
                fields[_PROPERTIES[name]] = given
            continue
        headers[name] = given
        rare = rare or name in _RARE
    if len(headers) + known < len(found):
        _read_repeated(found, headers)
    if rare:
        _read_rare(headers, fields)


def _read_repeated(found: Sequence[Header], headers: dict[str, t.Any]) -> None:
    """A name that stands several times has a list of its values; ours, the last."""
    values: dict[str, list[t.Any]] = {}
    for name, value in found:
        values.setdefault(name, []).append(_decoded(value))
    for name, several in values.items():
        theirs = name not in RESERVED and not name.startswith(own_headers.PREFIX)
        if theirs and len(several) > 1:
            headers[name] = several


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _read_rare(headers: dict[str, t.Any], fields: dict[str, t.Any]) -> None:
    """What only copies have, and messages with properties that are seldom used."""
    headers.pop(DUE, None)
    if own_headers.KEY in headers:
        _read_key(headers.pop(own_headers.KEY), fields)
    _restore(headers)
    for header, name in _FURTHER.items():
        if header in headers:
            fields["properties"][name] = headers.pop(header)
    fields["priority"] = _octet(fields["properties"].pop("priority", None))
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


def _octet(text: t.Any) -> int | None:
    found = isinstance(text, str) and re.fullmatch("[0-9]{1,3}", text)
    return min(int(text), 255) if found else None


def _restore(headers: dict[str, t.Any]) -> None:
    """Give values back their types; what is no JSON stays the text that it is."""
    for name in _names(headers.pop(AS_JSON, None)):
        if isinstance(headers.get(name), str):
            headers[name] = _value(headers[name])
    for name in _names(headers.pop(AS_BYTES, None)):
        if isinstance(headers.get(name), str):
            headers[name] = headers[name].encode()


def _names(text: t.Any) -> Iterable[str]:
    """The names in a list, each once: a long value is read only once."""
    found = _value(text) if isinstance(text, str) else None
    if not isinstance(found, list):
        return ()
    return dict.fromkeys(name for name in found if isinstance(name, str))


def _value(text: str) -> t.Any:
    try:
        return kombu_json.decode(text)
    except Exception:
        return text


def _written(headers: Mapping[str, t.Any], *, lenient: bool = False) -> list[Header]:
    """Headers as they go into a record.

    :param lenient: Whether what is no plain value is left out and told by its name.
    :raises TypeError: for such a one, where that is an error of who publishes it.
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
        elif (text := _encoded(value, lenient)) is None:
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


def _encoded(value: t.Any, lenient: bool) -> bytes | None:
    """As JSON; ``None`` if it is nested so deeply that it could but be read."""
    try:
        return kombu_json.encode(value).encode()
    except RecursionError:
        return None
    except Exception:
        # A hook may have put anything there, and a copy must not fail for it.
        if lenient:
            return None
        raise


def _properties(
    message: Message | Outgoing, further: Mapping[str, t.Any]
) -> t.Iterator[Header]:
    for header, name in _PROPERTIES.items():
        value = getattr(message, name)
        if value is not None:
            yield header, value.encode("utf-8", "backslashreplace")
    for name, value in further.items():
        if name in _HEADER_OF and value is not None:
            yield _HEADER_OF[name], _bytes(value)
    if message.priority is not None:
        yield _HEADER_OF["priority"], _bytes(message.priority)


def _bytes(value: t.Any) -> bytes:
    """What is not UTF-8 comes, and goes, as bytes."""
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "backslashreplace")


def _read_key(key: t.Any, fields: dict[str, t.Any]) -> None:
    """A key that is not UTF-8 is escaped; its bytes are kept for copies."""
    if isinstance(key, bytes):
        try:
            key = key.decode()
        except UnicodeDecodeError:
            fields["properties"][RAW_KEY] = key
            key = key.decode("utf-8", "backslashreplace")
    fields["key"] = key


def _key_of(message: Message | Outgoing) -> bytes | None:
    key = message.properties.get(RAW_KEY, message.key)
    return key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
