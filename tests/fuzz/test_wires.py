"""What RabbitMQ may send, in any pieces: read by us as by py-amqp, and all of it."""

from __future__ import annotations

import datetime
import decimal
import struct
import typing as t

import amqp
import pytest
from amqp import spec
from amqp.exceptions import UnexpectedFrame
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_qconsume.brokers.rabbitmq.amqp import frames as frames

from . import wires

quick = settings(derandomize=True, max_examples=40, deadline=None, database=None)


def sized(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


def short(text: str) -> bytes:
    raw = text.encode()
    return bytes([len(raw)]) + raw


def number(kind: str, layout: str, low: int, high: int) -> st.SearchStrategy[bytes]:
    whole = st.integers(low, high)
    return whole.map(lambda each: kind.encode() + struct.pack(layout, each))


texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text(st.characters(codec="utf-8"), max_size=8)

#: A value of each type that a table of RabbitMQ's can hold.
plain = st.one_of(
    texts.map(lambda text: b"S" + sized(text.encode())),
    st.binary(max_size=9).map(lambda raw: b"S" + sized(raw)),
    st.binary(max_size=9).map(lambda raw: b"x" + sized(raw)),
    number("t", ">B", 0, 255),
    number("b", ">b", -(2**7), 2**7 - 1),
    number("B", ">B", 0, 2**8 - 1),
    number("s", ">h", -(2**15), 2**15 - 1),
    number("u", ">H", 0, 2**16 - 1),
    number("I", ">i", -(2**31), 2**31 - 1),
    number("i", ">I", 0, 2**32 - 1),
    number("l", ">q", -(2**63), 2**63 - 1),
    number("L", ">q", -(2**63), 2**63 - 1),
    number("T", ">Q", 0, 253_402_300_799),
    st.floats(width=32).map(lambda each: b"f" + struct.pack(">f", each)),
    st.floats().map(lambda each: b"d" + struct.pack(">d", each)),
    st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1)).map(
        lambda each: b"D" + struct.pack(">Bi", *each)
    ),
    st.just(b"V"),
)


def tables(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    pairs = st.lists(st.tuples(names.map(short), values).map(b"".join), max_size=4)
    return pairs.map(lambda each: sized(b"".join(each)))


def arrays(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(values, max_size=3).map(lambda each: b"A" + sized(b"".join(each)))


values = st.recursive(
    plain, lambda each: arrays(each) | tables(each).map(b"F".__add__), max_leaves=8
)
kinds = {
    "s": texts.map(short),
    "o": st.integers(0, 255).map(lambda each: bytes([each])),
    "L": st.integers(0, 2**64 - 1).map(lambda each: struct.pack(">Q", each)),
    "F": tables(values),
}


@st.composite
def properties(draw: st.DrawFn) -> bytes:
    """Any of the properties, or all of them."""
    flags, written = 0, b""
    everything = draw(st.booleans())
    for index, (_, kind) in enumerate(amqp.Message.PROPERTIES):
        if everything or draw(st.booleans()):
            flags |= 0x8000 >> index
            written += draw(kinds[kind])
    return struct.pack(">H", flags) + written


@st.composite
def contents(draw: st.DrawFn, channel: int) -> list[bytes]:
    """The frames of a delivery or a returned message, with a body in any pieces."""
    returned = draw(st.sampled_from([False, False, True]))
    exchange_and_key = draw(names.map(short)) + draw(names.map(short))
    if returned:
        method = struct.pack(">HHH", *spec.Basic.Return, 312) + short("NO_ROUTE")
    else:
        tag, again = draw(st.integers(1, 2**63)), draw(st.booleans())
        method = struct.pack(">HH", *spec.Basic.Deliver) + draw(names.map(short))
        method += struct.pack(">QB", tag, again)
    body = draw(st.binary(max_size=60))
    size = draw(st.sampled_from([10, 16, 4096]))
    return frames.build_publish(
        channel, method + exchange_and_key, draw(properties()), body, frame_max=size
    )


def methods(channel: int) -> st.SearchStrategy[list[bytes]]:
    """What else a broker says on a channel."""
    numbers = st.integers(1, 2**63)
    cancel = struct.pack(">HH", *spec.Basic.Cancel)
    cancels = names.map(lambda name: cancel + short(name) + b"\x01")
    said = st.one_of(
        numbers.map(lambda each: frames.build_ack(channel, each, multiple=True)),
        numbers.map(lambda each: frames.build_requeue(channel, each, multiple=False)),
        cancels.map(lambda each: frames.build_frame(frames.METHOD, channel, each)),
    )
    return said.map(lambda frame: [frame])


def of_channel(channel: int) -> st.SearchStrategy[list[list[bytes]]]:
    return st.lists(contents(channel) | methods(channel), max_size=4)


BLOCKED = struct.pack(">HH", *spec.Connection.Blocked) + short("low")
BETWEEN = [
    [frames.build_frame(frames.HEARTBEAT, 0, b"")],
    [frames.build_frame(frames.METHOD, 0, BLOCKED)],
]


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, int]:
    """What comes on two channels, mixed, heartbeats in between; how many messages."""
    said = [draw(of_channel(channel)) for channel in wires.CHANNELS]
    waiting = [[frame for each in one for frame in each] for one in said]
    mixed = []
    while remaining := [each for each in waiting if each]:
        mixed.append(draw(st.sampled_from(remaining)).pop(0))
        mixed.extend(draw(st.sampled_from(([], [], [], *BETWEEN))))
    deliver = struct.pack(">HH", *spec.Basic.Deliver)
    return b"".join(mixed), sum(
        each[0][7:11] == deliver for one in said for each in one
    )


sizes = st.lists(st.integers(1, 50), min_size=1, max_size=5) | st.just([4096])


@quick
@given(streams(), sizes)
def test_what_a_broker_sends_is_read_as_by_py_amqp_in_any_pieces(
    sent: tuple[bytes, int], size: list[int]
) -> None:
    stream, count = sent
    us, them = wires.heard_by_us(stream, size), wires.heard_by_py_amqp(stream)
    assert us.events == them.events
    assert us.to_the_end and them.to_the_end
    delivered = [event for event in us.events if event[0] == "delivered"]
    assert len(delivered) == len(wires.messages(stream, size)) == count


@quick
@given(streams(), sizes, st.data())
def test_a_stream_that_was_damaged_brings_nothing_that_was_not_sent(
    sent: tuple[bytes, int], size: list[int], data: st.DataObject
) -> None:
    stream = bytearray(sent[0] + b"\0")
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(
            st.integers(0, 255)
        )
    wires.compare(bytes(stream), size)


def test_values_come_as_what_they_are() -> None:
    table = b"".join(
        (
            short("d") + b"D\x02" + struct.pack(">i", -150),
            short("t") + b"T" + struct.pack(">Q", 86_400),
            short("x") + b"x" + sized(b"\xff"),
            short("s") + b"s" + struct.pack(">h", -2),
        )
    )
    header = struct.pack(">HHQH", 60, 0, 0, 0x2000) + sized(table)
    expected: dict[str, t.Any] = {
        "d": decimal.Decimal("-1.5"),
        "t": datetime.datetime(1970, 1, 2),
        "x": b"\xff",
        "s": -2,
    }
    assert frames.parse_properties(header) == ({"application_headers": expected}, None)


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_frame_that_is_too_large_is_refused_at_once(size: int) -> None:
    begun = b"\x03\x00\x01" + struct.pack(">I", 131_073) + bytes(1_000)
    us, them = wires.heard_by_us(begun, size), wires.heard_by_py_amqp(begun, size)
    assert them.to_the_end
    assert us.refused_a_size
    assert "131073 bytes; 131072 are allowed" in str(us.error)
    assert isinstance(us.error, UnexpectedFrame)


def test_a_frame_may_be_as_large_as_was_agreed() -> None:
    tune = struct.pack(">HHHIH", *spec.Connection.Tune, 0, 5_000, 0)
    agreed = frames.build_frame(frames.METHOD, 0, tune)
    for size in (5_000, 5_001):
        begun = struct.pack(">BHI", 3, 1, size) + bytes(10)
        assert wires.heard_by_us(agreed + begun, 4096).refused_a_size == (size > 5_000)


@pytest.mark.parametrize("size", [1, 3, 4096])
def test_py_amqp_gives_up_where_we_go_on(size: int) -> None:
    """So the comparison above has something to find."""
    method = struct.pack(">HH", *spec.Basic.Deliver) + short("tag") + bytes(9)
    method += short("") + short("k")
    stream = b"".join(
        frames.build_publish(1, method, b"\x80\x00\x01\xff", b"a", frame_max=4096)
    )
    us, them = wires.heard_by_us(stream, size), wires.heard_by_py_amqp(stream, size)
    assert isinstance(them.error, UnicodeDecodeError)
    assert (len(us.events), us.to_the_end) == (1, True)
