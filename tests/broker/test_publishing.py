"""What a user publishes: checked before anything is sent."""

from __future__ import annotations

import time
import typing as t
import uuid

import kombu
import pytest

from flask_qconsume import PublishError
from flask_qconsume.broker import headers as ours
from flask_qconsume.broker.publishing import OPTIONS
from flask_qconsume.broker.publishing import compose
from flask_qconsume.broker.publishing import unroutable
from flask_qconsume.message import Outgoing


def composed(routing_key: str = "k", body: t.Any = None, **options: t.Any) -> Outgoing:
    return compose("shop", routing_key, body, **options)


def test_a_plain_message_is_json_with_an_id_and_a_time() -> None:
    before = time.time()
    message = composed("order.created", {"n": 1})
    assert uuid.UUID(message.id)
    assert message.timestamp is not None and before <= message.timestamp <= time.time()
    assert (message.exchange, message.routing_key) == ("shop", "order.created")
    assert (message.body, message.content_type) == (b'{"n":1}', "application/json")
    assert message.content_encoding == "utf-8"
    assert message.headers == {
        ours.EXCHANGE: "shop",
        ours.ROUTING_KEY: "order.created",
    }
    assert (message.delay, message.expires, message.priority) == (0.0, None, None)
    assert message.mandatory


def test_every_option_gets_there() -> None:
    message = composed(
        headers={"x-tenant": "acme"},
        key="customer 7",
        delay=5,
        expires=60,
        priority=9,
        content_type="application/msgpack",
        mandatory=False,
        exchange="events",
        id="mine",
    )
    assert message.headers["x-tenant"] == "acme"
    assert (message.key, message.delay, message.expires) == ("customer 7", 5.0, 60.0)
    assert (message.priority, message.mandatory, message.id) == (9, False, "mine")
    assert (message.exchange, message.headers[ours.EXCHANGE]) == ("events", "events")
    assert (message.content_encoding, message.body) == ("binary", b"\xc0")


@pytest.mark.parametrize("option", OPTIONS)
def test_none_is_as_good_as_left_out(option: str) -> None:
    if option != "mandatory":
        assert composed(id="m", **{option: None} if option != "id" else {})
    assert composed(**{option: None}).exchange == "shop"


@pytest.mark.parametrize(
    ("exchange", "name"),
    [(kombu.Exchange("events"), "events"), ("", ""), (kombu.Exchange(""), "")],
)
def test_an_exchange_is_a_name_or_kombus(exchange: t.Any, name: str) -> None:
    assert composed(exchange=exchange).exchange == name


def test_bytes_are_sent_as_they_are_without_an_encoding() -> None:
    message = composed(body=b"\x89PNG", content_type="image/png")
    assert (message.body, message.content_encoding) == (b"\x89PNG", None)


def test_headers_of_the_callers_are_not_changed() -> None:
    headers = {"a": 1}
    composed(headers=headers)
    assert headers == {"a": 1}


LONG = "x" * 256


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"routing_key": ""}, "The routing key must be a text"),
        ({"routing_key": None}, "The routing key must be a text"),
        ({"routing_key": 5}, "'routing_key' must be a text of 255 bytes at the most"),
        ({"routing_key": LONG}, "'routing_key' must be a text of 255 bytes"),
        ({"routing_key": "ü" * 128}, "'routing_key' must be a text of 255 bytes"),
        ({"routing_key": "\ud800"}, "cannot be written as UTF-8"),
        ({"priority": 10}, "'priority' must be a whole number 0 to 9, not '10'"),
        ({"priority": -1}, "'priority' must be a whole number"),
        ({"priority": True}, "'priority' must be a whole number"),
        ({"priority": "5"}, "'priority' must be a whole number"),
        ({"delay": -1}, "'delay' must be seconds from 0 up, not '-1'"),
        ({"delay": float("nan")}, "'delay' must be seconds"),
        ({"delay": "5"}, "'delay' must be seconds"),
        ({"delay": True}, "'delay' must be seconds"),
        ({"expires": float("inf")}, "'expires' must be seconds"),
        ({"expires": -0.1}, "'expires' must be seconds"),
        ({"key": 5}, "'key' must be a text, not '5'"),
        ({"key": "\ud800"}, "cannot be written as UTF-8"),
        ({"id": 5}, "'id' must be a text of 255 bytes"),
        ({"id": LONG}, "'id' must be a text of 255 bytes"),
        ({"exchange": 5}, "'exchange' must be a text of 255 bytes"),
        ({"exchange": LONG}, "'exchange' must be a text of 255 bytes"),
        ({"content_type": LONG, "body": b""}, "'content_type' must be a text"),
        ({"content_type": 5, "body": b""}, "'content_type' must be a text"),
        ({"content_type": "x/y"}, "There is no encoder for 'x/y': publish bytes"),
        ({"headers": "x"}, "'headers' must be a mapping, not 'x'"),
        ({"headers": [("a", 1)]}, "'headers' must be a mapping"),
        ({"headers": {5: 1}}, "'a header's name' must be a text"),
        ({"headers": {LONG: 1}}, "'a header's name' must be a text"),
        ({"headers": {"\ud800": 1}}, "cannot be written as UTF-8"),
        ({"headers": {"X-QConsume-Attempt": 1}}, "'X-QConsume-Attempt' cannot be set"),
        ({"headers": {ours.KEY: "k"}}, f"'{ours.KEY}' cannot be set"),
        ({"body": object()}, "A body cannot hold a 'object'"),
        ({"body": float("nan")}, "The body cannot be written as application/json"),
        ({"body": "\ud800"}, "The body cannot be written as application/json"),
        ({"body": {(1, 2): 3}}, "The body cannot be written as application/json"),
        ({"dealy": 5}, "'publish' has no option 'dealy'. It has: content_type, delay,"),
    ],
)
def test_what_makes_no_sense_is_a_publish_error(
    given: dict[str, t.Any], said: str
) -> None:
    with pytest.raises(PublishError) as caught:
        composed(**given)
    assert said in str(caught.value)


def test_a_body_that_holds_itself_is_a_publish_error() -> None:
    body: list[t.Any] = []
    body.append(body)
    for kind in ("application/json", "application/msgpack"):
        with pytest.raises(PublishError, match=f"cannot be written as {kind}"):
            composed(body=body, content_type=kind)


def test_an_unroutable_message_says_where_nobody_listens() -> None:
    named = str(unroutable(composed("order.x")))
    assert named.startswith(
        "No queue is bound to the exchange 'shop' for the routing key 'order.x', so"
    )
    queue = str(unroutable(composed("order.x", exchange="")))
    assert queue.startswith("There is no queue 'order.x', so nobody would get the")
