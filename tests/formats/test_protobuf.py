"""Protobuf bodies: how their type is found, and how invalid bodies are refused."""

from __future__ import annotations

import subprocess
import sys
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema

from flask_qconsume import Ack
from flask_qconsume import InvalidMessage
from flask_qconsume import Message
from flask_qconsume import Protobuf
from flask_qconsume import PublishError
from flask_qconsume import QConsume
from flask_qconsume import RegistrationError
from flask_qconsume import Reject
from flask_qconsume import UndecodableMessage
from flask_qconsume import current_message
from flask_qconsume.broker.compose import compose
from flask_qconsume.formats.protobuf import TYPE
from flask_qconsume.formats.protobuf import ProtobufSchema
from flask_qconsume.formats.table import Formats
from flask_qconsume.handling.payload import decode
from tests.apps import make_app
from tests.protobufs import Invoice
from tests.protobufs import Order
from tests.protobufs import Ping
from tests.protobufs import Strict

PROTOBUF = "application/protobuf"
LIMIT = 1024 * 1024


def decoded(
    raw: bytes,
    schema: t.Any = Order,
    header: t.Any = None,
    registered: t.Sequence[t.Any] = (),
    content_type: str = PROTOBUF,
) -> t.Any:
    """Decode a body, as for a consumer with that ``schema=``."""
    declared = ProtobufSchema(schema) if schema is not None else None
    decoders = Formats([Protobuf(*registered)]).decoders(schema=declared)
    headers = {} if header is None else {TYPE: header}
    message = Message(raw, "q", headers=headers, content_type=content_type)
    return decode(message, decoders, LIMIT)


def nested(depth: int) -> bytes:
    """Create an order nested in an order nested in …"""
    raw = b""
    for _ in range(depth):
        size, length = len(raw), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        raw = b"\x1a" + length + bytes([size]) + raw
    return raw


ORDER = Order(id=7, total="19.90")
RAW = ORDER.SerializeToString()

# -- finding the type ------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        PROTOBUF,
        "application/x-protobuf",
        "application/vnd.google.protobuf",
        "Application/Protobuf; version=3",
    ],
)
def test_the_consumers_schema_says_the_type(content_type: str) -> None:
    assert decoded(RAW, content_type=content_type) == ORDER


@pytest.mark.parametrize("name", ["shop.Order", "type.googleapis.com/shop.Order"])
def test_a_header_names_a_type_that_was_registered(name: str) -> None:
    assert decoded(RAW, None, name, [Invoice, Order]) == ORDER


def test_a_header_that_agrees_with_the_schema_is_fine() -> None:
    assert decoded(RAW, Order, "shop.Order") == ORDER


@pytest.mark.parametrize(
    ("schema", "header", "said"),
    [
        (None, None, "nothing says which protobuf type it is: neither a header 'x-qc"),
        (None, "shop.Gift", "'shop.Gift' is not known here; there are: shop.Invoice"),
        (None, "os.system", "'os.system' is not known here; there are: shop.Invoice"),
        (None, "google.protobuf.Any", "'google.protobuf.Any' is not known here"),
        (None, "\x1b[2J\n", r"'\x1b[2J\n' is not known here"),
        (None, 7, "'7' is not known here"),
        (None, ["shop.Order"], "is not known here"),
        (Order, "shop.Invoice", "it is a protobuf 'shop.Invoice', and the consumer ta"),
    ],
)
def test_another_type_is_undecodable(schema: t.Any, header: t.Any, said: str) -> None:
    with pytest.raises(UndecodableMessage) as caught:
        decoded(RAW, schema, header, [Invoice])
    assert said in caught.value.reason
    assert caught.value.reason.isprintable()


def test_an_app_without_types_says_that_it_has_none() -> None:
    with pytest.raises(UndecodableMessage, match="not known here; there are: none"):
        decoded(RAW, None, "shop.Order")


# -- invalid bodies --------------------------------------------------------------------

HOSTILE: dict[str, tuple[t.Any, ...]] = {
    "garbage": (b"hello", "the body is no 'shop.Order': "),
    "truncated": (RAW[:-2], "the body is no 'shop.Order': "),
    "only a tag": (b"\x08", "the body is no 'shop.Order': "),
    "bits": (b"\xff" * 50, "the body is no 'shop.Order': "),
    "no UTF-8": (b"\x12\x01\xff", "the body is no 'shop.Order': "),
    "a liar's length": (b"\x12\xff\xff\xff\xff\x07a", "the body is no 'shop.Order': "),
    "too deep": (nested(101), "the body is no 'shop.Order': "),
    "far too deep": (nested(5_000), "the body is no 'shop.Order': "),
    "framed": (b"\0\0\0\0\x05\0" + RAW, "it may be framed for a schema registry"),
    "JSON": (b'{"id": 7}', "the body is no 'shop.Order': "),
    "empty": (b"", "it is empty, and no header says that it is a 'shop.Order'"),
    "another type": (
        Invoice(sum=1.5).SerializeToString(),
        "it has no field of 'shop.Order', only others",
    ),
    "unknown fields": (b"\x98\x06\x01", "it has no field of 'shop.Order', only others"),
}


@pytest.mark.parametrize(("raw", "said"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_body_of_the_type_is_undecodable(raw: bytes, said: str) -> None:
    with pytest.raises(UndecodableMessage) as caught:
        decoded(raw)
    assert said in caught.value.reason
    assert len(caught.value.reason) < 1_000


def test_a_field_that_is_required_and_missing_is_named() -> None:
    with pytest.raises(UndecodableMessage, match="has no id, which 'shop.Strict' re"):
        decoded(b"", Strict, "shop.Strict")
    assert decoded(b"\x08\x01", Strict).id == 1


def test_what_names_its_type_may_be_empty_or_of_a_later_version() -> None:
    assert decoded(b"", Order, "shop.Order") == Order()
    assert decoded(b"\x98\x06\x01", Order, "shop.Order").ListFields() == []
    assert decoded(RAW + b"\x98\x06\x01").id == 7


def test_what_is_not_in_doubt_needs_no_name() -> None:
    assert decoded(b"\x08\x00") == Order()
    assert decoded(b"", Ping) == Ping()
    assert decoded(nested(99)).part_of


@given(st.binary(), st.none() | st.sampled_from(["shop.Order", "shop.Invoice", ""]))
def test_decoding_anything_raises_invalid_messages_only(
    raw: bytes, header: str | None
) -> None:
    for schema in (Order, None):
        try:
            decoded(raw, schema, header, [Order])
        except InvalidMessage as error:
            assert error.reason.isprintable()


# -- publishing ------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [None, PROTOBUF, "application/x-protobuf"])
def test_a_published_message_says_what_it_is(content_type: str | None) -> None:
    message = compose("shop", "a", ORDER, content_type=content_type)
    assert message.content_type == content_type or PROTOBUF
    assert message.content_encoding == "binary"
    assert message.headers[TYPE] == "shop.Order"
    assert Order.FromString(message.body) == ORDER


def test_bytes_are_sent_as_they_are_and_of_no_type() -> None:
    message = compose("shop", "a", RAW, content_type=PROTOBUF)
    assert (message.body, message.content_type) == (RAW, PROTOBUF)
    assert TYPE not in message.headers


def test_a_message_can_be_published_as_the_json_it_stands_for() -> None:
    message = compose("shop", "a", ORDER, content_type="application/json")
    assert message.body == b'{"id":"7","total":"19.90"}'
    assert TYPE not in message.headers
    inside = compose("shop", "a", {"orders": [ORDER]})
    assert inside.body == b'{"orders":[{"id":"7","total":"19.90"}]}'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"id": 7}, "publish a protobuf message, or bytes, not 'dict'"),
        (Order, "publish a protobuf message, or bytes, not "),
        (Strict(), "missing required fields: id"),
    ],
)
def test_what_cannot_be_written_is_refused(body: t.Any, said: str) -> None:
    with pytest.raises(PublishError) as caught:
        compose("shop", "a", body, content_type=PROTOBUF)
    assert "The body cannot be written as application/protobuf: " in str(caught.value)
    assert said in str(caught.value)


# -- in an app -------------------------------------------------------------------------


class Shop:
    """An app with the consumers 'bill', of orders, and 'audit', of anything."""

    def __init__(self, schema: t.Any = Order, **config: t.Any) -> None:
        self.qconsume = QConsume()
        self.handled: list[t.Any] = []
        self.qconsume.add_consumer("billing", self.handle, name="bill", schema=schema)
        self.qconsume.add_consumer("audit", self.handle, name="audit")
        self.app = make_app(self.qconsume, **config)
        self.client = self.qconsume.test_client(self.app)

    def handle(self, body: t.Any) -> None:
        self.handled.append((body, current_message.body))


def test_the_handler_gets_the_message() -> None:
    shop = Shop()
    assert shop.client.deliver("bill", ORDER).outcome == Ack()
    assert shop.client.deliver("bill", RAW, content_type=PROTOBUF).outcome == Ack()
    assert shop.handled == [(ORDER, ORDER)] * 2


def test_types_that_one_consumer_declares_are_known_to_all() -> None:
    shop = Shop()
    assert shop.client.deliver("audit", ORDER).outcome == Ack()
    assert shop.handled == [(ORDER, ORDER)]
    assert "there are: shop.Order" in str(shop.client.deliver("audit", Ping()).error)


def test_registering_it_anew_makes_more_types_known_and_another_header() -> None:
    shop = Shop()
    shop.qconsume.register_format(Protobuf(Invoice, Ping, header="X-Protobuf-Message"))
    assert shop.client.deliver("audit", Ping()).outcome == Ack()
    assert shop.client.deliver("audit", ORDER).outcome == Ack()
    with shop.client.capture() as published:
        shop.app.extensions["qconsume"].publish("audit", Invoice(number="5"))
    assert published[0].body == Invoice(number="5")
    assert published[0].headers == {"X-Protobuf-Message": "shop.Invoice"}


def test_json_is_taken_where_a_message_is_declared() -> None:
    shop = Shop()
    good = {"id": "7", "total": "19.90"}
    assert shop.client.deliver("bill", good).outcome == Ack()
    assert shop.handled == [(ORDER, good)]
    for bad, said in [
        ({"nr": 7}, 'has no field named "nr"'),
        ({"id": "seven"}, "Failed to parse id field"),
        ([], "it is a 'list', not a mapping"),
        (None, "not a mapping"),
    ]:
        outcome = shop.client.deliver("bill", bad).outcome
        assert isinstance(outcome, Reject)
        assert "it is no 'shop.Order': " in outcome.reason
        assert said in outcome.reason


def test_json_cannot_nest_without_end() -> None:
    body: t.Any = {"id": 1}
    for _ in range(200):
        body = {"partOf": body}
    outcome = Shop().client.deliver("bill", body).outcome
    assert isinstance(outcome, Reject)
    assert "it is no 'shop.Order': " in outcome.reason


def test_garbage_is_a_dead_letter_at_once() -> None:
    shop = Shop()
    for raw, said in HOSTILE.values():
        result = shop.client.deliver("bill", raw, content_type=PROTOBUF)
        assert isinstance(result.outcome, Reject)
        assert said in result.outcome.reason
    assert shop.handled == []


def test_a_message_that_another_schema_cannot_load_is_a_dead_letter() -> None:
    shop = Shop(schema=Schema)
    shop.qconsume.register_format(Protobuf(Order))
    outcome = shop.client.deliver("bill", ORDER).outcome
    assert isinstance(outcome, Reject)
    assert "the schema refused it" in outcome.reason


def test_configuration_may_leave_it_out() -> None:
    shop = Shop(accept=["application/json"])
    outcome = shop.client.deliver("bill", ORDER).outcome
    assert outcome == Reject(
        "the content type 'application/protobuf' is not accepted; there are:"
        " application/json"
    )


def test_capture_shows_declared_messages_and_the_bytes_of_other_ones() -> None:
    shop = Shop()
    with shop.client.capture() as published:
        publish = shop.app.extensions["qconsume"].publish
        publish("billing", ORDER)
        publish("billing", Invoice(number="5"))
    assert [each.body for each in published] == [
        ORDER,
        Invoice(number="5").SerializeToString(),
    ]
    assert published[0].headers == {}


@pytest.mark.parametrize("given", [5, "shop.Order", ORDER, dict])
def test_only_message_classes_are_types(given: t.Any) -> None:
    with pytest.raises(RegistrationError, match="takes generated message classes, not"):
        Protobuf(given)


@pytest.mark.process
def test_protobuf_is_imported_only_where_it_is_installed() -> None:
    code = (
        "import sys, flask\n"
        "sys.modules['google.protobuf'] = None\n"
        "from flask_qconsume import QConsume, Reject\n"
        "app = flask.Flask('x')\n"
        "app.config['QCONSUME_BROKER_URL'] = 'memory://'\n"
        "qconsume = QConsume(app)\n"
        "qconsume.add_consumer('q', print, name='q')\n"
        "client = qconsume.test_client(app)\n"
        "client.deliver('q', {'id': 1}, catch=False)\n"
        "found = client.deliver('q', b'1', content_type='application/protobuf')\n"
        "print(found.outcome.reason)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert "{'id': 1}\nnothing says which protobuf type it is" in done.stdout
