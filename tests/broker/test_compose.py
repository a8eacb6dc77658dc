"""Arguments of ``publish`` are checked before a message is sent."""

from __future__ import annotations

import datetime
import decimal
import inspect
import signal
import sys
import time
import types
import typing as t
import uuid

import kombu
import pytest

from flask_qconsume import AppConsumers
from flask_qconsume import Format
from flask_qconsume import PublishError
from flask_qconsume import QConsume
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.compose import OPTIONS
from flask_qconsume.broker.compose import compose
from flask_qconsume.broker.compose import make_unroutable_error
from flask_qconsume.broker.properties import encode_outgoing
from flask_qconsume.brokers.rabbitmq.amqp.properties import encode_properties
from flask_qconsume.brokers.redis.json_values import encode_json
from flask_qconsume.formats.table import Formats
from flask_qconsume.message import Outgoing
from tests.apps import make_app


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
    assert message.headers == {}
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
    assert message.headers == {"x-tenant": "acme"}
    assert (message.key, message.delay, message.expires) == ("customer 7", 5.0, 60.0)
    assert (message.priority, message.mandatory, message.id) == (9, False, "mine")
    assert message.exchange == "events"
    assert (message.content_encoding, message.body) == ("binary", b"\xc0")


@pytest.mark.parametrize("option", OPTIONS)
def test_none_is_as_good_as_left_out(option: str) -> None:
    if option != "mandatory":
        assert composed(id="m", **{option: None} if option != "id" else {})
    assert composed(**{option: None}).exchange == "shop"


def test_the_options_of_many_messages_are_those_of_one() -> None:
    parameters = inspect.signature(QConsume.publish).parameters.values()
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert sorted(keywords) == list(OPTIONS)
    assert QConsume.publish is AppConsumers.publish


@pytest.mark.parametrize(
    ("exchange", "name"),
    [(kombu.Exchange("events"), "events"), ("", ""), (kombu.Exchange(""), "")],
)
def test_an_exchange_is_a_name_or_kombus(exchange: t.Any, name: str) -> None:
    assert composed(exchange=exchange).exchange == name


def test_bytes_are_sent_as_they_are_without_an_encoding() -> None:
    message = composed(body=b"\x89PNG", content_type="image/png")
    assert (message.body, message.content_encoding) == (b"\x89PNG", None)


@pytest.mark.parametrize("charset", ["utf-8", '"UTF8"', "us-ascii", "latin-1"])
def test_a_character_set_may_be_said_where_it_makes_no_difference(charset: str) -> None:
    kind = f"application/json; charset={charset}"
    assert composed(body=["a"], content_type=kind).body == b'["a"]'
    assert composed(body=b"\xff", content_type="text/plain; charset=x").body == b"\xff"


def test_headers_of_the_callers_are_not_changed() -> None:
    headers = {"a": 1}
    composed(headers=headers)
    assert headers == {"a": 1}


LONG = "x" * 256


class Deep:
    """Headers that AMQP cannot encode, and headers that it can."""

    endless: t.ClassVar[list[t.Any]] = []
    endless.append(endless)
    of_50: t.ClassVar[t.Any] = 1
    for _ in range(49):
        of_50 = {"in": of_50}


EAST = datetime.timezone(datetime.timedelta(hours=2))

WRITABLE: list[t.Any] = [
    "ü\n",
    b"\xff",
    bytes(300),
    True,
    0.1,
    sys.float_info.max,
    None,
    2**63 - 1,
    -(2**63),
    -(2**31),
    decimal.Decimal("-1.10"),
    decimal.Decimal(2**31 - 1),
    decimal.Decimal("1e-255"),
    datetime.datetime(1970, 1, 1),
    datetime.datetime(1970, 1, 1, 2, tzinfo=EAST),
    datetime.datetime.max,
    [],
    (1, [None, {"a": b"x"}]),
    {"x" * 255: {}},
    Deep.of_50,
    signal.SIGTERM,
]


@pytest.mark.parametrize("value", WRITABLE)
def test_what_amqp_and_json_can_write_may_be_a_header(value: t.Any) -> None:
    message = composed(headers={"h": value})
    assert message.headers["h"] == value
    assert encode_properties(encode_outgoing(message))
    assert encode_json(encode_outgoing(message))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "it holds a 'object'. Headers hold texts, whole numbers of 64"),
        ({1, 2}, "it holds a 'set'"),
        (uuid.UUID(int=5), "it holds a 'UUID'"),
        (datetime.date(2026, 1, 1), "it holds a 'date'"),
        (datetime.timedelta(1), "it holds a 'timedelta'"),
        (bytearray(b"x"), "it holds a 'bytearray'"),
        (5j, "it holds a 'complex'"),
        (types.MappingProxyType({}), "it holds a 'mappingproxy'"),
        ([1, [print]], "it holds a 'builtin_function_or_method'"),
        ({"a": {"b": object()}}, "it holds a 'object'"),
        (2**63, "its 'int' is out of range. Headers hold"),
        (-(2**63) - 1, "is out of range"),
        ([2**70], "is out of range"),
        (decimal.Decimal("NaN"), "its 'Decimal' is out of range"),
        (decimal.Decimal("-Infinity"), "is out of range"),
        (decimal.Decimal(2**31), "is out of range"),
        (decimal.Decimal("1e5"), "is out of range"),
        (decimal.Decimal("1e-256"), "is out of range"),
        (decimal.Decimal("9" * 5_000), "is out of range"),
        pytest.param(10**5_000, "its 'int' is out of range", id="long"),
        ("\ud800", "'\\ud800' is no UTF-8"),
        (["x", "\udc80"], "is no UTF-8"),
        ({"\ud800": 1}, "must be a text of up to 255 bytes"),
        ([10**5_000], "is out of range"),
        (datetime.datetime(1969, 12, 31, 23, 59, 59), "its 'datetime' is out of range"),
        (float("nan"), "its 'float' is out of range"),
        ([{"a": float("-inf")}], "its 'float' is out of range"),
        (datetime.datetime(1970, 1, 1, 1, tzinfo=EAST), "is out of range"),
        (datetime.datetime.min.replace(tzinfo=EAST), "is out of range"),
        ({1: 2}, "its key '1' must be a text of up to 255 bytes"),
        ({"ü" * 128: 2}, "must be a text of up to 255"),
        (Deep.endless, "it nests deeper than 50"),
        ([Deep.of_50], "it nests deeper than 50"),
    ],
)
def test_another_header_is_refused_by_name_on_every_broker(
    value: t.Any, said: str
) -> None:
    with pytest.raises(PublishError) as caught:
        composed(headers={"fine": 1, "tenant\n": value})
    assert str(caught.value).startswith(r"The header 'tenant\n' cannot be sent: ")
    assert said in str(caught.value)


def test_headers_of_a_format_are_checked_as_well() -> None:
    class Odd(Format):
        content_types = ("a/b",)

        def encode(self, body: t.Any, routing_key: str) -> bytes:
            return b""

        def headers(self, body: t.Any) -> dict[str, t.Any]:
            return {"odd": object()}

    with pytest.raises(PublishError, match="The header 'odd' cannot be sent"):
        compose("shop", "a", 1, Formats([Odd()]), content_type="a/b")


def test_a_header_is_refused_before_any_broker_has_it() -> None:
    app = make_app()
    with pytest.raises(PublishError, match="The header 'x' cannot be sent"):
        app.extensions["qconsume"].publish("a", 1, headers={"x": object()})


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
        ({"delay": -1}, "'delay' must be seconds from 0 up, or a timedelta, not '-1'"),
        ({"delay": float("nan")}, "'delay' must be seconds"),
        ({"delay": "5"}, "'delay' must be seconds"),
        ({"delay": True}, "'delay' must be seconds"),
        ({"delay": 10**400}, "'delay' must be seconds"),
        ({"delay": 10**5_000}, "'delay' must be seconds"),
        ({"priority": 10**5_000}, "'priority' must be a whole number"),
        ({"delay": 1e308}, "'delay' must be seconds"),
        ({"expires": float("inf")}, "'expires' must be seconds"),
        ({"expires": 1e308}, "'expires' must be seconds"),
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
        ({"headers": {own_headers.KEY: "k"}}, f"'{own_headers.KEY}' cannot be set"),
        ({"body": object()}, "A body cannot hold a 'object'"),
        ({"body": float("nan")}, "The body cannot be written as application/json"),
        ({"body": "\ud800"}, "The body cannot be written as application/json"),
        ({"body": {(1, 2): 3}}, "The body cannot be written as application/json"),
        (
            {"body": "ü", "content_type": "text/plain; charset=latin-1"},
            "it would be UTF-8, not 'latin-1'; leave the character set out, or publish",
        ),
        ({"body": "a", "content_type": "text/plain; charset=utf-16"}, "not 'utf-16'"),
        ({"body": [], "content_type": "a/b+json; charset=ebcdic"}, "not 'ebcdic'"),
        ({"body": "a", "content_type": "text/plain; charset=idna"}, "not 'idna'"),
    ],
)
def test_what_makes_no_sense_is_a_publish_error(
    given: dict[str, t.Any], said: str
) -> None:
    with pytest.raises(PublishError) as caught:
        composed(**given)
    assert said in str(caught.value)


def test_delays_and_expirations_may_be_timedeltas() -> None:
    message = composed(
        delay=datetime.timedelta(minutes=5), expires=datetime.timedelta(hours=1)
    )
    assert (message.delay, message.expires) == (300.0, 3600.0)
    longest = datetime.timedelta.max
    assert composed(expires=longest).expires == longest.total_seconds()
    with pytest.raises(PublishError, match="'delay' must be seconds from 0 up"):
        composed(delay=datetime.timedelta(seconds=-1))


def test_a_body_that_holds_itself_is_a_publish_error() -> None:
    body: list[t.Any] = []
    body.append(body)
    for kind in ("application/json", "application/msgpack"):
        with pytest.raises(PublishError, match=f"cannot be written as {kind}"):
            composed(body=body, content_type=kind)


def test_an_unroutable_message_names_its_exchange_and_key() -> None:
    named = str(make_unroutable_error(composed("order.x")))
    assert named.startswith(
        "No queue is bound to the exchange 'shop' for the routing key 'order.x', so"
    )
    queue = str(make_unroutable_error(composed("order.x", exchange="")))
    assert queue.startswith("There is no queue 'order.x', so no consumer would get the")


def test_an_id_of_ours_is_a_random_uuid() -> None:
    ids = {compose("", "q", {}).id for _ in range(1_000)}
    found = [uuid.UUID(id) for id in ids]

    assert len(ids) == 1_000
    assert {id.version for id in found} == {4}
    assert {id.variant for id in found} == {uuid.RFC_4122}
    assert ids == {str(id) for id in found}
