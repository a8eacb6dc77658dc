"""Dead letters as texts: bodies and headers that JSON cannot represent."""

from __future__ import annotations

import functools
import gzip
import json
import typing as t

import pytest

from flask_qconsume import Format
from flask_qconsume import Message
from flask_qconsume import Retry
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.dead_letters import DeadLetter
from flask_qconsume.cli.dead_letter_text import format_json
from flask_qconsume.cli.dead_letter_text import format_page
from flask_qconsume.formats.protobuf import ProtobufSchema
from flask_qconsume.formats.table import Formats
from tests.protobufs import Order

RAW = Order(id=7, total="1\x1b[2J").SerializeToString()


class UnreachableFormat(Format):
    """A format whose registry never answers."""

    content_types = ("application/avro",)

    def decode(self, message: Message) -> t.Any:
        raise Retry()


DECODERS = Formats([UnreachableFormat()]).decoders(schema=ProtobufSchema(Order))


def make_letter(raw: bytes, content_type: str) -> DeadLetter:
    message = Message(raw, "billing", content_type=content_type)
    return DeadLetter("1", "billing", message, message.headers)


def test_a_protobuf_message_is_shown_as_its_json() -> None:
    found = make_letter(RAW, "application/protobuf")
    shown = format_page(found, DECODERS)
    assert '"id": "7",' in shown
    assert "\x1b" not in shown
    line = format_json(found, DECODERS, whole=True)
    assert json.loads(line)["body"] == {"id": "7", "total": "1\x1b[2J"}
    assert line.isprintable()


@pytest.mark.parametrize("content_type", ["application/protobuf", "application/avro"])
def test_an_undecodable_body_is_shown_as_bytes(content_type: str) -> None:
    found = make_letter(b"\xff\x08", content_type)
    assert r"\xff\x08" in format_page(found, DECODERS)
    assert json.loads(format_json(found, DECODERS, whole=True))["body_base64"] == "/wg="


def test_a_value_that_json_cannot_represent_is_shown_as_text() -> None:
    found = make_letter(b"\x81\xa1a\xc4\x01x", "application/msgpack")
    assert '"a": "b\'x\'"' in format_page(found, DECODERS)


NOT_JSON: dict[str, t.Any] = {
    "NaN": float("nan"),
    "infinity within": {"a": [float("-inf")]},
    "depth": functools.reduce(lambda inner, _: [inner], range(100_000), 0),
    "itself": b"\xff",
}


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("name", ["x-tenant", own_headers.CONSUMER, own_headers.REASON])
def test_a_header_that_json_cannot_represent_is_shown_as_text(
    name: str, value: t.Any
) -> None:
    message = Message(b"1", "billing", headers={name: value})
    found = DeadLetter("1", "billing", message, message.headers)

    line = format_json(found, DECODERS, whole=True)

    shown = json.loads(line, parse_constant=pytest.fail)["headers"][name]
    assert isinstance(shown, str)
    assert format_page(found, DECODERS)


def test_a_body_of_msgpack_with_nan_is_shown_in_base_64() -> None:
    found = make_letter(b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", "application/msgpack")

    line = format_json(found, DECODERS, whole=True)

    assert json.loads(line, parse_constant=pytest.fail)["body_base64"]


def test_a_compressed_body_is_shown_decompressed() -> None:
    raw = gzip.compress(b'{"n": 1}')
    message = Message(
        raw, "q", content_type="application/json", content_encoding="gzip"
    )
    found = DeadLetter("1", "q", message, {})

    assert '"n": 1' in format_page(found, DECODERS)
    assert json.loads(format_json(found, DECODERS, whole=True))["body"] == {"n": 1}


def test_a_body_that_decompresses_too_large_is_shown_as_bytes() -> None:
    raw = gzip.compress(b"0" * 20_000_000)
    message = Message(raw, "q", content_type="text/plain", content_encoding="gzip")
    found = DeadLetter("1", "q", message, {})

    assert f"body ({len(raw)} bytes)" in format_page(found, DECODERS)
    assert "body_base64" in json.loads(format_json(found, DECODERS, whole=True))
