"""Kafka's records: read into messages, and created from them."""

from __future__ import annotations

import datetime
import decimal
import json
import typing as t

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE
from confluent_kafka import Message as Fetched
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_qconsume import TOMBSTONE
from flask_qconsume import Message
from flask_qconsume import PublishError
from flask_qconsume import UnsupportedByBroker
from flask_qconsume.broker.compose import compose
from flask_qconsume.brokers.kafka import records
from flask_qconsume.brokers.kafka.client.producer import ProducerRecord
from flask_qconsume.message import Outgoing
from tests.fuzz.cost import bounded

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8")),
    st.binary(),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.sampled_from(["a", "b"]), st.text("xyz"), max_size=2),
)
ORDER = {"n": 1}
NAMES = st.text("abcdefgh-", min_size=1, max_size=5).map("h-".__add__)


def fetched(record: ProducerRecord, **changes: t.Any) -> Fetched:
    """A record as it comes back."""
    found: dict[str, t.Any] = {
        "topic": record.topic,
        "partition": 3,
        "offset": 7,
        "key": record.key,
        "value": record.value,
        "headers": list(record.headers),
        "timestamp": (TIMESTAMP_CREATE_TIME, record.timestamp or 1_000),
    }
    return Fetched(**{**found, **changes})


def read(record: Fetched, **known: t.Any) -> Message:
    known = {"exchange": "qconsume", **known}
    return records.read_record(record, "billing", redelivered=False, **known)


def sent(body: t.Any = ORDER, **options: t.Any) -> ProducerRecord:
    message = compose("qconsume", "order.created", body, **options)
    return records.create_record(message, "order.created")


def test_where_it_was_published_to_is_said_where_the_topic_does_not() -> None:
    message = compose("shop", "order.created", ORDER)
    here = records.create_record(message, "order.created")
    elsewhere = records.create_record(message, "billing.retry")

    assert not [name for name, _ in here.headers if "x-qconsume-" in name]
    found = read(fetched(elsewhere), exchange="qconsume")
    assert (found.exchange, found.routing_key) == ("shop", "order.created")


@pytest.mark.deadline(20)
def test_a_long_header_is_read_once_however_often_it_is_named() -> None:
    names = json.dumps(["x-long"] * 100_000).encode()
    broken = b"[" + b"0," * 90_000
    record = fetched(
        ProducerRecord(
            "t", b"1", headers=(("x-long", broken), (records.AS_JSON, names))
        )
    )

    message = bounded(lambda: read(record))

    assert message.headers["x-long"] == broken.decode()


def test_a_header_of_too_many_values_stays_the_text_that_it_is() -> None:
    text = b"[" + b"{}," * 200_000 + b"{}]"
    record = fetched(
        ProducerRecord(
            "t", b"1", headers=(("x-many", text), (records.AS_JSON, b'["x-many"]'))
        )
    )

    assert read(record).headers["x-many"] == text.decode()


def test_what_is_published_comes_back() -> None:
    record = sent({"n": 1}, key="k-1", headers={"x-tenant": "a"}, id="m-1")

    found = read(fetched(record))

    assert record.key == b"k-1"
    assert record.value == b'{"n":1}'
    assert (found.id, found.key, found.raw) == ("m-1", "k-1", b'{"n":1}')
    assert (found.queue, found.exchange) == ("billing", "qconsume")
    assert found.routing_key == "order.created"
    assert found.content_type == "application/json"
    assert found.content_encoding == "utf-8"
    assert found.headers["x-tenant"] == "a"
    assert (found.attempt, found.deaths, found.tombstone) == (1, 0, False)
    assert found.timestamp == pytest.approx(record.timestamp / 1_000)
    place = {"topic": "order.created", "partition": 3, "offset": 7}
    assert found.properties == place
    assert "message-id" not in found.headers


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_headers_come_back_as_they_were(headers: dict[str, t.Any]) -> None:
    found = read(fetched(sent(headers=headers)))

    mine = {name: found.headers[name] for name in headers}
    assert mine == headers
    assert {n: type(v) for n, v in mine.items()} == {
        n: type(v) for n, v in headers.items()
    }
    assert not {records.AS_JSON, records.AS_BYTES} & set(found.headers)


def test_times_and_decimals_come_back() -> None:
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    headers = {"at": when, "sum": decimal.Decimal("1.50")}

    assert read(fetched(sent(headers=headers))).headers.items() >= headers.items()


def test_texts_are_readable_for_everybody() -> None:
    record = sent(headers={"tenant": "é", "number": 5, "list": [1, "a"]})

    written = dict(record.headers)
    assert written["tenant"] == "é".encode()
    assert written["number"] == b"5"
    assert written["list"] == b'[1, "a"]'
    assert written["content-type"] == b"application/json"


def test_a_foreign_record_is_a_message() -> None:
    found = read(
        Fetched(
            topic="orders",
            partition=0,
            offset=0,
            value=b"\xff",
            headers=[("a", b"1"), ("a", b"2"), ("raw", b"\xff"), ("nil", None)],
            timestamp=(TIMESTAMP_NOT_AVAILABLE, 0),
        )
    )
    assert (found.id, found.key, found.timestamp) == (None, None, None)
    assert found.headers == {"a": ["1", "2"], "raw": b"\xff", "nil": None}
    assert (found.routing_key, found.exchange) == ("orders", "qconsume")
    assert found.raw == b"\xff"


def test_headers_of_one_name_all_survive_a_copy() -> None:
    headers = [("a", b"1"), ("a", b"\xff"), ("a", None), ("b", b"1")]
    headers += [("correlation-id", b"1"), ("correlation-id", b"2")]
    headers += [("content-type", b"text/plain"), ("content-type", b"text/html")]
    headers += [("x-qconsume-attempt", b"1"), ("x-qconsume-attempt", b"2")]
    first = read(Fetched(topic="t", partition=0, offset=0, value=b"", headers=headers))
    assert first.headers["a"] == ["1", b"\xff", None]
    assert first.headers["b"] == "1"
    assert first.properties["correlation_id"] == "2"
    assert first.content_type == "text/html"
    copy = read(fetched(records.create_copy(first, first.headers, "elsewhere")))
    assert copy.headers["a"] == ["1", b"\xff", None]


def test_properties_of_amqp_that_kafka_does_not_know_survive_copies() -> None:
    told = {"priority": 7, "user_id": "shop", "expiration": "60000", "app_id": "a"}
    message = Outgoing(routing_key="t", body=b"", exchange="", properties=told)
    first = read(fetched(records.create_record(message, "t")))
    for found in first, read(fetched(records.create_copy(first, {}, "elsewhere"))):
        assert found.priority == 7
        kept = {k: v for k, v in found.properties.items() if k in told}
        assert kept == {"user_id": "shop", "expiration": "60000", "app_id": "a"}


def test_a_property_that_is_not_utf8_survives_copies() -> None:
    headers = [("correlation-id", b"\xff"), ("x-qconsume-amqp-priority", b"much")]
    first = read(Fetched(topic="t", partition=0, offset=0, value=b"", headers=headers))
    assert first.priority is None
    copy = records.create_copy(first, {}, "elsewhere")
    assert ("correlation-id", b"\xff") in copy.headers


def test_a_record_without_headers_is_a_message() -> None:
    found = read(Fetched(topic="orders", partition=0, offset=0, value=b"{}"))
    assert found.headers == {}


@pytest.mark.parametrize("nonsense", [b"{", b"5", b'{"a": 1}', b"[1]", b"\xff", None])
def test_nonsense_in_our_headers_is_no_error(nonsense: bytes | None) -> None:
    names = [
        records.AS_JSON,
        records.AS_BYTES,
        records.DUE,
        "x-qconsume-attempt",
        "message-id",
        "x-qconsume-published-at",
    ]
    found = read(
        Fetched(
            topic="orders",
            partition=0,
            offset=0,
            value=b"{}",
            headers=[(name, nonsense) for name in names],
        )
    )
    assert found.attempt == 1
    assert records.DUE not in found.headers


@pytest.mark.parametrize("mark", ["bytes", "base64", "uuid", "datetime", "none"])
def test_a_value_that_kombu_chokes_on_stays_a_text(mark: str) -> None:
    text = f'{{"__type__": "{mark}", "__value__": {{"hex": 5}}}}'
    headers = [("x", text.encode()), (records.AS_JSON, b'["x"]')]
    found = read(Fetched(topic="t", partition=0, offset=0, headers=headers))
    assert found.headers == {"x": text}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1500", 1.5),
        (b"x", 0.0),
        (b"-5", 0.0),
        (None, 0.0),
        (b"9" * 30, 2**53 / 1_000),
    ],
)
def test_when_a_record_is_due(value: bytes | None, seconds: float) -> None:
    found = Fetched(topic="t", headers=[("a", b"1"), (records.DUE, value)])
    assert records.read_due_time(found) == seconds


def test_a_record_without_that_is_due_at_once() -> None:
    assert records.read_due_time(Fetched(topic="t", headers=[("a", b"1")])) == 0.0
    assert records.read_due_time(Fetched(topic="t")) == 0.0


def test_a_copy_keeps_all_but_its_headers_and_its_time() -> None:
    first = read(fetched(sent({"n": 1}, key="k", headers={"a": 1}, id="m")))

    copy = records.create_copy(first, {"x-qconsume-attempt": 2}, "elsewhere", due=12.5)
    again = read(fetched(copy))

    assert copy.timestamp == 0
    assert records.read_due_time(fetched(copy)) == 12.5
    assert (again.id, again.key, again.raw) == ("m", "k", first.raw)
    assert again.timestamp == first.timestamp
    assert (again.attempt, again.content_type) == (2, first.content_type)
    assert "a" not in again.headers


def test_what_is_known_better_than_by_headers() -> None:
    copy = records.create_copy(read(fetched(sent())), {"x-qconsume-attempt": 2}, "t")
    found = read(fetched(copy), attempt=4, deaths=1)
    assert (found.attempt, found.deaths) == (4, 1)


def test_a_key_that_is_no_text_comes_back_as_the_same_bytes() -> None:
    found = read(Fetched(topic="t", partition=0, offset=0, key=b"\xff\x00", value=b""))
    assert found.key == "\\xff\x00"  # Any broker can carry it.
    assert records.create_copy(found, {}, "elsewhere").key == b"\xff\x00"


def test_a_dead_letter_has_a_key_of_its_own_and_keeps_the_message_s() -> None:
    first = read(fetched(sent(key="k", id="m")))

    key = records.create_dead_letter_key(first)
    copy = records.create_copy(first, {}, "dead", key=key)

    assert key == b"m@order.created/3/7"
    assert copy.key == key
    assert read(fetched(copy)).key == "k"


@pytest.mark.parametrize("key", [b"\xff\x00", b"", "ü".encode(), None])
def test_a_dead_letter_keeps_any_key_or_that_there_was_none(key: bytes | None) -> None:
    first = read(Fetched(topic="t", partition=0, offset=0, key=key, value=b""))
    dead = records.create_copy(
        first, {}, "dead", key=records.create_dead_letter_key(first)
    )
    letter = read(fetched(dead))
    assert letter.key == first.key
    assert records.create_copy(letter, letter.headers, "t").key == key


def test_a_key_in_json_is_a_key_that_can_be_sent() -> None:
    headers = [
        ("x-qconsume-key", b'"\\ud800"'),
        (records.AS_JSON, b'["x-qconsume-key"]'),
    ]
    found = read(Fetched(topic="t", partition=0, offset=0, headers=headers))
    assert records.create_copy(found, {}, "elsewhere").key == b'"\\ud800"'


def test_a_copy_goes_without_a_header_too_deep_to_be_written() -> None:
    deep: t.Any = "x"
    for _ in range(100_000):
        deep = [deep]
    copy = records.create_copy(read(fetched(sent())), {"deep": deep, "y": 1}, "t")
    again = read(fetched(copy))
    assert "deep" not in again.headers
    assert again.headers["y"] == 1
    assert again.headers["x-qconsume-changed-headers"] == "deep"


def test_properties_of_amqp_have_headers() -> None:
    first = read(
        Fetched(
            topic="t",
            partition=0,
            offset=0,
            value=b"",
            headers=[("correlation-id", b"c"), ("reply-to", b"r"), ("type", b"mine")],
        )
    )
    assert first.properties["correlation_id"] == "c"
    assert first.properties["reply_to"] == "r"
    assert first.headers == {"type": "mine"}
    written = dict(records.create_copy(first, first.headers, "t").headers)
    assert written == {"correlation-id": b"c", "reply-to": b"r", "type": b"mine"}


def test_a_header_with_a_property_s_name_is_refused() -> None:
    with pytest.raises(UnsupportedByBroker, match="'content-type' cannot be set"):
        sent(headers={"content-type": "x"})


def test_a_tombstone_has_no_value() -> None:
    record = sent(TOMBSTONE, key="k")

    found = read(fetched(record))

    assert record.value is None
    assert found.tombstone
    assert found.raw == b""
    assert records.create_copy(found, {}, "t").value is None


def test_a_tombstone_without_a_key_means_nothing() -> None:
    with pytest.raises(PublishError, match="needs a 'key'"):
        sent(TOMBSTONE)


def test_an_expiry_counts_from_the_time_it_is_published() -> None:
    record = sent(expires=5)
    found = read(fetched(record))
    assert found.expires_at == pytest.approx(record.timestamp / 1_000 + 5, abs=0.01)
