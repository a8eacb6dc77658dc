"""AMQP frames: parsed as py-amqp parses them, with any contents."""

from __future__ import annotations

import struct
import typing as t

import amqp
import pytest
from amqp import spec
from amqp.exceptions import UnexpectedFrame
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume.brokers.rabbitmq.amqp import frames as frames

texts = st.text(max_size=60)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": texts,
        "content_encoding": texts,
        "application_headers": st.dictionaries(
            texts, st.none() | st.booleans() | texts | st.integers(-(2**31), 2**31)
        ),
        "delivery_mode": st.integers(1, 2),
        "priority": st.integers(0, 9),
        "correlation_id": texts,
        "reply_to": texts,
        "expiration": texts,
        "message_id": texts,
        "timestamp": st.integers(0, 2**63),
        "type": texts,
        "user_id": texts,
        "app_id": texts,
        "cluster_id": texts,
    },
)


class Sink:
    """A stand-in for a connection, which collects the methods."""

    def __init__(self) -> None:
        self.bytes_recv = 0
        self.methods: list[tuple[t.Any, ...]] = []
        self.take = frames.FrameHandler(
            self, lambda *method: self.methods.append(method)
        )


def header(raw: bytes, size: int = 0) -> bytes:
    return struct.pack(">HHQ", 60, 0, size) + raw


@given(properties)
def test_properties_are_read_as_they_were_written(written: dict[str, t.Any]) -> None:
    raw = amqp.Message(b"", **written)._serialize_properties()
    assert frames.parse_properties(header(raw)) == (written, None)


@given(st.binary(max_size=30))
def test_any_bytes_make_a_readable_text(raw: bytes) -> None:
    flags = struct.pack(">HB", 0x8000, len(raw))
    found, problem = frames.parse_properties(header(flags + raw))
    assert problem is None
    found["content_type"].encode()


@given(st.binary(max_size=200))
def test_any_bytes_for_a_header_table_leave_the_other_properties(raw: bytes) -> None:
    flags = struct.pack(">HI", 0x2080, len(raw))
    found, problem = frames.parse_properties(header(flags + raw + b"\x02id"))
    assert found["message_id"] == "id"
    assert problem is None or found["application_headers"] == {}


def test_what_is_missing_is_told() -> None:
    for raw in (b"\x80\x00", b"\x20\x00\x00", b"\x10\x00", b"\x00\x40\x00"):
        found, problem = frames.parse_properties(header(raw))
        assert (found, problem) == ({}, "the properties end before they should")


@pytest.mark.parametrize(
    "table",
    [
        b"\x00\x00\x00\x03\x01aS\x00\x00\x00\x02no",
        b"\x00\x00\x00\x09\x01aS\x00\x00\x00\x05no",
    ],
)
def test_headers_that_do_not_fit_their_table_are_a_problem(table: bytes) -> None:
    """py-amqp would read on behind the table, and parse any bytes there."""
    found, problem = frames.parse_properties(header(b"\x20\x00" + table))
    assert found["application_headers"] == {}
    assert problem == "the headers do not end where they should"


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 4096))
def test_a_message_comes_whole_however_the_bytes_are_cut(body: bytes, cut: int) -> None:
    method = frames.build_publish_method("exchange", "key", mandatory=True)
    deliver = struct.pack(">HH", *spec.Basic.Deliver) + method[4:]
    written = b"".join(
        frames.build_publish(1, deliver, b"\x00\x00", body, frame_max=4096)
    )
    sink, data, at = Sink(), b"", 0
    for start in range(0, len(written), cut):
        data += written[start : start + cut]
        while frames.has_frame(data, at):
            frame = frames.parse_frame_at(data, at)
            at += len(frame[2]) + frames.OVERHEAD
            sink.take(frame)
    ((channel, signature, payload, content),) = sink.methods
    assert (channel, signature, payload) == (1, spec.Basic.Deliver, deliver)
    assert content.body == body
    assert at == len(data)


@st.composite
def deliveries(draw: st.DrawFn) -> bytes:
    """The frames of a delivery, some of their bytes changed, or cut off."""
    names = st.binary(max_size=20)
    arguments = [draw(names) for _ in range(3)]
    tag, exchange, key = (bytes([len(name)]) + name for name in arguments)
    number = struct.pack(">QB", draw(st.integers(0, 2**64 - 1)), draw(st.booleans()))
    deliver = struct.pack(">HH", *spec.Basic.Deliver) + tag + number + exchange + key
    basic = amqp.Message(b"", **draw(properties))._serialize_properties()
    body = draw(st.binary(max_size=40))
    size = draw(st.sampled_from([32, 4096]))
    data = bytearray(
        b"".join(frames.build_publish(1, deliver, basic, body, frame_max=size))
    )
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(len(data) // 2, len(data)))])


@given(deliveries(), st.binary(max_size=20))
def test_a_delivery_taken_at_once_is_what_its_frames_are(
    data: bytes, before: bytes
) -> None:
    found = frames.parse_delivery_at(before + data, len(before), 1)
    if found is None:
        return
    sink, at = Sink(), 0
    while at < found.end - len(before):
        frame = frames.parse_frame_at(data, at)
        at += len(frame[2]) + frames.OVERHEAD
        sink.take(frame)
    ((channel, signature, payload, content),) = sink.methods
    assert at == found.end - len(before)
    assert (channel, signature) == (1, spec.Basic.Deliver)
    assert frames.parse_deliver(payload) == found[:5]
    assert frames.parse_properties(found.header) == (
        content.properties,
        content.problem,
    )
    assert found.body == content.body


def test_a_whole_delivery_is_taken_at_once() -> None:
    method = b"\x00\x3c\x00\x3c\x03tag" + struct.pack(">QB", 7, 1) + b"\x01x\x01k"
    for body in (b"", b"body"):
        data = b"".join(frames.build_publish(1, method, bytes(2), body, frame_max=4096))
        found = frames.parse_delivery_at(data, 0, 1)
        head = header(bytes(2), len(body))
        assert found == ("tag", 7, True, "x", "k", head, body, len(data))
        assert frames.parse_delivery_at(data[:-1], 0, 1) is None
        assert frames.parse_delivery_at(data, 0, 2) is None


@given(st.binary(max_size=60))
def test_common_tables_are_read_as_py_amqp_reads_them(raw: bytes) -> None:
    """Also with random bytes between texts and numbers."""
    table = b"\x01aS\x00\x00\x00\x02\xc3\xa4\x01bl" + bytes(7) + b"\x05" + raw
    packed = b"\x20\x00" + struct.pack(">I", len(table)) + table
    found, problem = frames.parse_properties(header(packed))
    try:
        (expected,), _ = amqp.serialization.loads("F", packed, 2)
    except Exception:
        assert problem is not None
        return
    named = {frames._decode_name(key): value for key, value in expected.items()}
    assert repr(found["application_headers"]) == repr(named)


def test_two_channels_may_be_mixed() -> None:
    sink = Sink()
    deliver = struct.pack(">HH", *spec.Basic.Deliver)
    empty = header(b"\x00\x00")
    for channel in (1, 2):
        sink.take((frames.METHOD, channel, deliver))
    for channel in (2, 1):
        assert sink.take((frames.HEADER, channel, empty))
    assert [method[0] for method in sink.methods] == [2, 1]


def test_a_heartbeat_counts_and_means_nothing() -> None:
    sink = Sink()
    assert not sink.take((frames.HEARTBEAT, 0, b""))
    assert (sink.bytes_recv, sink.methods) == (1, [])


def test_frames_out_of_order_end_the_connection() -> None:
    with pytest.raises(UnexpectedFrame):
        Sink().take((frames.BODY, 1, b"body"))
    with pytest.raises(UnexpectedFrame):
        frames.parse_frame_at(b"\x01\x00\x01\x00\x00\x00\x01xx", 0)


def test_short_strings_that_are_no_utf_8_are_escaped_in_place() -> None:
    payload = b"abcd" + struct.pack(">QB", 2**63, 1) + b"\x01\xff\x02ok" + bytes(4)
    assert frames.escape_short_strings("Lbssl", payload) == (
        b"abcd" + struct.pack(">QB", 2**63, 1) + b"\x04\\xff\x02ok" + bytes(4)
    )
