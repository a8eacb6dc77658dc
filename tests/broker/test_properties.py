"""AMQP's basic properties: decoded from any values, and encoded from messages."""

from __future__ import annotations

import datetime
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume import Message
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.properties import encode_copy
from flask_qconsume.broker.properties import encode_outgoing
from flask_qconsume.broker.properties import read_message
from flask_qconsume.message import Outgoing

UTC = datetime.timezone.utc


def arrived(
    properties: dict[str, t.Any] | None = None, headers: t.Any = None
) -> Message:
    return read_message(
        b"{}",
        queue="billing",
        exchange="shop",
        routing_key="order.created",
        redelivered=False,
        properties=properties or {},
        headers=headers,
    )


@pytest.mark.parametrize("headers", [None, {}, [], "x", 5, [("a", 1)]])
def test_a_foreign_message_has_nothing_of_ours(headers: t.Any) -> None:
    message = arrived(headers=headers)
    assert message == Message(
        b"{}", "billing", exchange="shop", routing_key="order.created"
    )


def test_our_headers_are_read() -> None:
    message = arrived(
        headers={
            own_headers.ATTEMPT: 4,
            own_headers.DEATHS: 2,
            own_headers.KEY: "k",
            own_headers.PUBLISHED_AT: 12.5,
            own_headers.EXPIRES_AT: 99.5,
            own_headers.EXCHANGE: "origin",
            own_headers.ROUTING_KEY: "first",
            "x-tenant": "acme",
        }
    )
    assert (message.attempt, message.deaths, message.key) == (4, 2, "k")
    assert (message.timestamp, message.expires_at) == (12.5, 99.5)
    assert (message.exchange, message.routing_key) == ("origin", "first")
    assert message.headers["x-tenant"] == "acme"


def test_nonsense_in_our_headers_counts_as_absent() -> None:
    names = [
        own_headers.ATTEMPT,
        own_headers.DEATHS,
        own_headers.KEY,
        own_headers.PUBLISHED_AT,
    ]
    names += [own_headers.EXPIRES_AT, own_headers.EXCHANGE, own_headers.ROUTING_KEY]
    for nonsense in (None, [], {}, True, b"\xff", object(), float("nan"), -(10**40)):
        message = arrived(headers=dict.fromkeys(names, nonsense))
        plain = arrived()
        for name in ("attempt", "deaths", "key", "timestamp", "expires_at"):
            assert getattr(message, name) == getattr(plain, name), nonsense
        assert (message.exchange, message.routing_key) == ("shop", "order.created")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (datetime.datetime(2026, 1, 1, tzinfo=UTC), 1767225600.0),
        (datetime.datetime.min, None),
        (datetime.datetime.max.replace(tzinfo=UTC), None),
        (-1, None),
        (2**63, None),
        (10**400, None),
        ("1", None),
        (True, None),
        (None, None),
        (object(), None),
    ],
)
def test_a_timestamp_is_a_time_or_nothing(value: t.Any, found: float | None) -> None:
    assert arrived({"timestamp": value}).timestamp == found


@pytest.mark.parametrize(
    ("value", "found"),
    [(0, 0), (9, 9), (255, 255), (256, None), (-1, None), ("9", None), (True, None)],
)
def test_a_priority_is_what_amqp_can_write_or_nothing(
    value: t.Any, found: int | None
) -> None:
    assert arrived({"priority": value}).priority == found


@pytest.mark.parametrize("value", ["", 5, None, b"x", [], {}])
def test_an_id_or_type_that_is_no_text_is_none(value: t.Any) -> None:
    names = ("message_id", "content_type", "content_encoding")
    message = arrived(dict.fromkeys(names, value))
    assert (message.id, message.content_type, message.content_encoding) == (None,) * 3


def test_foreign_properties_are_kept_as_far_as_a_copy_may_have_them() -> None:
    given = {
        "correlation_id": "c",
        "reply_to": "r",
        "type": "t",
        "app_id": "a",
        "cluster_id": "cl",
        "expiration": "1000",
        "user_id": "guest",
        "delivery_mode": 1,
        "nonsense": 5,
    }
    message = arrived(given)
    kept = {"correlation_id", "reply_to", "type", "app_id", "cluster_id"}
    assert {*message.properties} == {*kept, "user_id"}
    written = encode_copy(message, {})
    assert written == {
        **{name: given[name] for name in kept},
        "delivery_mode": 2,
        "headers": {},
    }


def test_what_is_published_carries_its_times_and_key() -> None:
    properties = encode_outgoing(
        Outgoing("k", b"", timestamp=100.9, delay=5, expires=10, key="customer 7")
    )
    assert properties["timestamp"] == 100
    assert properties["delivery_mode"] == 2
    assert properties["headers"] == {
        own_headers.PUBLISHED_AT: 100.9,
        own_headers.KEY: "customer 7",
        own_headers.EXPIRES_AT: 115.9,
    }
    assert "priority" not in properties


def test_publishing_changes_no_headers_of_the_callers() -> None:
    headers: dict[str, t.Any] = {"a": 1}
    encode_outgoing(Outgoing("k", b"", headers=headers, expires=5))
    assert headers == {"a": 1}


def test_what_was_published_arrives_as_it_was() -> None:
    sent = Outgoing(
        "k",
        b"{}",
        id="m1",
        headers={"a": 1},
        content_type="application/json",
        content_encoding="utf-8",
        timestamp=100.5,
        priority=3,
        properties={"reply_to": "r"},
        key="k7",
    )
    properties = encode_outgoing(sent)
    message = arrived(properties, properties["headers"])
    assert (message.id, message.timestamp, message.priority) == ("m1", 100.5, 3)
    assert (message.content_type, message.content_encoding) == (
        "application/json",
        "utf-8",
    )
    assert (message.key, message.headers["a"]) == ("k7", 1)
    assert message.properties == {"reply_to": "r"}


def test_a_copy_is_the_message_with_other_headers() -> None:
    message = arrived(
        {"message_id": "m1", "priority": 3, "timestamp": 100, "content_type": "x/y"},
        {"a": 1},
    )
    assert encode_copy(message, {"b": 2}) == {
        "message_id": "m1",
        "content_type": "x/y",
        "priority": 3,
        "timestamp": 100,
        "delivery_mode": 2,
        "headers": {"b": 2},
    }


hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
PROPERTIES = (
    "message_id",
    "timestamp",
    "content_type",
    "content_encoding",
    "priority",
    "reply_to",
)
OURS = [
    value
    for name, value in vars(own_headers).items()
    if str(value).startswith(own_headers.PREFIX)
]


@given(
    st.dictionaries(st.sampled_from(PROPERTIES), hostile),
    st.dictionaries(st.sampled_from(OURS) | st.text(), hostile) | hostile,
)
def test_anything_arrives_as_a_message_that_can_be_copied(
    properties: dict[str, t.Any], headers: t.Any
) -> None:
    message = arrived(properties, headers)
    for made in (
        own_headers.make_retry_headers(message, 2),
        own_headers.make_suspect_headers(message, 1, 1.0),
        own_headers.make_dead_letter_headers(
            message, "bill", "billing", "no", None, 1.0
        ),
    ):
        written = encode_copy(message, made)
        assert 0 <= written.get("timestamp", 0) < 2**63
        assert 0 <= written.get("priority", 0) <= 255
