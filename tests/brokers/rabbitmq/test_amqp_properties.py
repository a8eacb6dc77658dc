"""Basic properties are encoded as py-amqp encodes them, with any values."""

from __future__ import annotations

import datetime
import decimal
import typing as t

import amqp
import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume.brokers.rabbitmq.amqp import properties as amqp_properties
from flask_qconsume.brokers.rabbitmq.amqp.properties import encode_properties

TEXTS = st.text(max_size=80) | st.text(min_size=80, max_size=300)
NUMBERS = st.integers(-(2**31) - 2, 2**31 + 2) | st.integers(-(2**65), 2**65)
PLAIN = st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    PLAIN
    | st.binary(max_size=20)
    | st.decimals(-1_000, 1_000, places=2)
    | st.datetimes(datetime.datetime(1970, 1, 1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner),
    max_leaves=6,
)
SHORT = ("content_type", "content_encoding", "correlation_id", "reply_to", "expiration")
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys((*SHORT, "message_id", "type", "app_id", "cluster_id"), TEXTS),
        "headers": st.dictionaries(TEXTS, VALUES, max_size=5),
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(-1, 256) | st.none(),
        "timestamp": st.integers(-1, 2**64) | st.datetimes(),
        "no_property": st.just(1),
    },
)


def by_amqp(properties: t.Mapping[str, t.Any]) -> t.Any:
    table = {**properties, "application_headers": properties.get("headers") or None}
    return amqp.Message(b"", **table)._serialize_properties()


def result(write: t.Callable[..., t.Any], properties: t.Mapping[str, t.Any]) -> t.Any:
    try:
        return write(properties)
    except Exception as error:
        return type(error)


@given(PROPERTIES)
@example({"headers": {"a": 2**31 - 1, "b": -(2**31), "c": 2**31, "d": True, "e": -0.0}})
@example({"headers": {"a": 2**63}})
@example({"headers": {"a": decimal.Decimal("1.5"), "b": [1, {"c": None}]}})
@example({"headers": {}, "message_id": "\ud800"})
@example({"headers": {"\ud800": "\udfff"}})
@example({"headers": {"n" * 255: 1}, "content_type": "t" * 255})
@example({"headers": {"n" * 256: 1}})
@example({"content_type": "é" * 128})
@example({"message_id": 7})
@example({"timestamp": 1.5})
def test_they_are_written_as_by_py_amqp(properties: dict[str, t.Any]) -> None:
    assert result(encode_properties, properties) == result(by_amqp, properties)


@pytest.mark.parametrize("value", ["text", 1, -(2**40), 1.5, True])
def test_what_is_usual_is_not_left_to_py_amqp(value: t.Any) -> None:
    usual = {"headers": {"name": value}, "message_id": "1", "timestamp": 5}

    assert amqp_properties._encode_usual(usual) == by_amqp(usual)
