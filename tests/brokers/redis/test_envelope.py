"""kombu's envelope, and everything that may lie in its place."""

from __future__ import annotations

import base64
import datetime
import decimal
import json

import pytest

from flask_qconsume.broker import properties as basic_properties
from flask_qconsume.brokers.redis_lists import envelope
from flask_qconsume.errors import PublishRefused
from flask_qconsume.message import Outgoing


def kombu_envelope(body="e30=", **properties):
    return {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"x": 1},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "e", "routing_key": "r"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "a-tag",
            **properties,
        },
    }


def encode(value) -> bytes:
    return json.dumps(value).encode()


def encode_changed(**changes) -> bytes:
    return encode({**kombu_envelope(), **changes})


FOREIGN = {
    "JSON": b'{"id": 1, "total": "9.90"}',
    "JSON with a body": b'{"body": "hello"}',
    "JSON with a body and properties": b'{"body": "hello", "properties": {"a": 1}}',
    "GeoJSON": b'{"type": "Feature", "properties": {"delivery_tag": "x"}}',
    "a list": b"[1, 2]",
    "a number": b"17",
    "a text": b'"hello"',
    "null": b"null",
    "no JSON": b"{not json",
    "nothing": b"",
    "bytes": bytes(range(256)),
    "a brace and bytes": b"{\xff\xfe\x00",
    "deep JSON": b'{"a":' * 100_000,
    "JSON of many values": encode_changed(headers={"a": [{}] * 200_000}),
    "a huge number": b'{"a": 1' + b"0" * 10_000 + b"}",
    "properties that are none": encode_changed(properties=7),
    "a list of properties": encode_changed(properties=["delivery_tag"]),
    "a body that is a mapping": encode_changed(body={"a": 1}),
    "a body that is null": encode_changed(body=None),
    "wrong base64": encode(kombu_envelope(body="e30")),
    "no base64": encode(kombu_envelope(body="{}{}")),
    "base64 that is not ASCII": encode(kombu_envelope(body="ä")),
    "an unknown encoding": encode(kombu_envelope(body_encoding="rot13")),
    "an encoding that is none": encode(kombu_envelope(body_encoding={"a": []})),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_envelope_is_a_foreign_message(name):
    message = envelope.read_element(FOREIGN[name], "q")
    assert message.raw == FOREIGN[name]
    assert message.id is None
    assert message.headers == {}
    assert message.content_type is None
    assert (message.exchange, message.routing_key) == ("", "q")
    assert (message.attempt, message.redelivered) == (1, False)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_message_keeps_its_body_in_copies(name):
    message = envelope.read_element(FOREIGN[name], "q")
    properties = basic_properties.encode_copy(message, {"x-qconsume-attempt": 2})
    sealed = envelope.encode_envelope(
        properties, message.raw, exchange="", routing_key="q"
    )
    copy = envelope.read_element(sealed, "q")
    assert copy.raw == FOREIGN[name]
    assert (copy.id, copy.attempt, copy.content_type) == (None, 2, None)
    again = envelope.read_element(envelope.mark_redelivered(FOREIGN[name], "q"), "q")
    assert again.raw == FOREIGN[name]
    assert again.redelivered
    assert again.headers == {}


NONSENSE = {
    "headers that are a list": encode_changed(headers=["a"]),
    "headers that are null": encode_changed(headers=None),
    "a content type that is a number": encode_changed(**{"content-type": 7}),
    "a priority that is a text": encode(kombu_envelope(priority="high")),
    "a priority out of range": encode(kombu_envelope(priority=-(10**30))),
    "delivery info that is a list": encode(kombu_envelope(delivery_info=[])),
    "no delivery info": encode(kombu_envelope(delivery_info=None)),
    "an exchange that is a number": encode(
        kombu_envelope(delivery_info={"exchange": 1})
    ),
    "a message id that is a list": encode(kombu_envelope(message_id=[1])),
    "a timestamp that is a text": encode(kombu_envelope(timestamp="yesterday")),
    "a huge timestamp": encode(kombu_envelope(timestamp=10**400)),
    "a correlation id of lists": encode(kombu_envelope(correlation_id=[[]])),
    "a tag that is null": encode(kombu_envelope(delivery_tag=None)),
    "ours with nonsense": encode_changed(
        headers={
            "x-qconsume-attempt": "many",
            "x-qconsume-deaths": -3,
            "x-qconsume-published-at": 10**400,
            "x-qconsume-expires-at": [],
            "x-qconsume-key": 1,
        }
    ),
    "an unknown type of kombu's": encode_changed(
        headers={"x": {"__type__": "no such", "__value__": 1}}
    ),
    "a date of kombu's that is none": encode_changed(
        headers={"x": {"__type__": "datetime", "__value__": "never"}}
    ),
    "bytes of kombu's that are a number": encode_changed(
        headers={"x": {"__type__": "bytes", "__value__": 5}}
    ),
    "base64 of kombu's that is a list": encode_changed(
        headers={"x": {"__type__": "base64", "__value__": []}}
    ),
    "a UUID of kombu's that is a number": encode_changed(
        headers={"x": {"__type__": "uuid", "__value__": {"hex": 5}}}
    ),
    "a lone surrogate": encode(kombu_envelope(body="\ud800", body_encoding="utf-8")),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_inside_an_envelope_is_no_error(name):
    message = envelope.read_element(NONSENSE[name], "q")
    assert message.raw in (b"{}", b"\xed\xa0\x80", NONSENSE[name])
    assert (message.attempt, message.deaths) == (1, 0)
    again = envelope.read_element(envelope.mark_redelivered(NONSENSE[name], "q"), "q")
    assert again.raw == message.raw
    assert again.redelivered


def test_what_is_sealed_is_an_envelope_of_kombus():
    sent = Outgoing("order.created", b"\xff", id="i", priority=7, headers={"a": "b"})
    sealed = json.loads(
        envelope.encode_envelope(
            basic_properties.encode_outgoing(sent),
            b"\xff",
            exchange="e",
            routing_key="r",
        )
    )
    assert sealed["body"] == base64.b64encode(b"\xff").decode()
    assert sealed["headers"]["a"] == "b"
    properties = sealed["properties"]
    assert properties["delivery_info"] == {"exchange": "e", "routing_key": "r"}
    assert properties["body_encoding"] == "base64"
    assert properties["priority"] == 2
    assert properties["message_id"] == "i"
    assert len(properties["delivery_tag"]) == 36


def test_headers_may_hold_what_kombus_json_can():
    held = {
        "date": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "number": decimal.Decimal("1.5"),
        "nested": {"a": [1, None, True]},
        "text": "ä\ud800",
    }
    sealed = envelope.encode_envelope(
        {"headers": held}, b"", exchange="", routing_key="q"
    )
    assert envelope.read_element(sealed, "q").headers == held
    marked = envelope.mark_redelivered(sealed, "q")
    assert envelope.read_element(marked, "q").headers == held


def test_headers_that_json_cannot_hold_are_refused():
    with pytest.raises(PublishRefused, match="headers"):
        envelope.encode_envelope(
            {"headers": {"a": object()}}, b"", exchange="", routing_key=""
        )


@pytest.mark.parametrize(
    "marked",
    [
        encode_changed(headers={"redelivered": True}),
        encode(kombu_envelope(delivery_info={"redelivered": True})),
        encode_changed(redelivered=True),
    ],
)
def test_kombus_marks_of_a_redelivery_are_read_and_not_kept(marked):
    message = envelope.read_element(marked, "q")
    assert message.redelivered
    copy = envelope.encode_envelope(
        basic_properties.encode_copy(message, message.headers),
        b"",
        exchange="",
        routing_key="q",
    )
    assert not envelope.read_element(copy, "q").redelivered


def test_a_redelivered_envelope_has_a_tag_of_its_own_and_all_else_as_it_was():
    before = kombu_envelope(priority=3, reply_to="there")
    after = json.loads(envelope.mark_redelivered(encode(before), "q"))
    assert after["properties"].pop("delivery_tag") != "a-tag"
    assert after["properties"]["delivery_info"].pop("redelivered") is True
    assert after["headers"].pop("redelivered") is True
    del before["properties"]["delivery_tag"]
    assert after == before


def test_a_body_that_is_text_is_read_as_text():
    found = envelope.read_element(
        encode(kombu_envelope(body="ä", body_encoding="utf-8")), "q"
    )
    assert found.raw == "ä".encode()
    assert (
        envelope.read_element(
            encode(kombu_envelope(body="", body_encoding=None)), "q"
        ).raw
        == b""
    )


def test_base64_may_be_broken_into_lines():
    assert (
        envelope.read_element(encode(kombu_envelope(body="e\n30=\n")), "q").raw == b"{}"
    )
