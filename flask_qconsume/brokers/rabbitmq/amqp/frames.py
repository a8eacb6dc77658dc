"""AMQP frames, read tolerantly and written in batches. No I/O.

What stands in a property came from some publisher. py-amqp raises for text that is not
UTF-8 and for values it has no Python object for, in the middle of a message: it leaves
the connection unusable, the broker delivers the message again, for ever. Here every
message that the broker can deliver arrives.
"""

from __future__ import annotations

import functools
import struct
import typing as t
from collections.abc import Callable

import amqp
from amqp import spec
from amqp.exceptions import UnexpectedFrame
from amqp.serialization import dumps
from amqp.serialization import loads

METHOD = 1
HEADER = 2
BODY = 3
HEARTBEAT = 8
END = 0xCE
_KINDS = frozenset([METHOD, HEADER, BODY, HEARTBEAT])

Frame = tuple[int, int, bytes]
Signature = tuple[int, int]

_WITH_CONTENT = frozenset([spec.Basic.Return, spec.Basic.Deliver, spec.Basic.GetOk])

#: Frame type, channel, size before a frame's payload; one octet behind it.
_HEAD = struct.Struct(">BHI")
#: The same, and the method's class and number as one.
_METHOD_HEAD = struct.Struct(">BHII")
_DELIVER = spec.Basic.Deliver[0] << 16 | spec.Basic.Deliver[1]
_TAG = struct.Struct(">QB")
_LONG = struct.Struct(">I")
_LONGLONG = struct.Struct(">Q")
#: Class, weight and size of the body, before a message's properties.
_CONTENT_HEAD = struct.Struct(">HHQ")
#: What a frame needs beside its payload.
OVERHEAD = 8


class Content(amqp.Message):  # type: ignore[misc]
    """A message as it was delivered."""

    #: Why its headers could not be read, if they could not.
    problem: str | None = None


class Frames:
    """Puts frames together to methods, like ``amqp.method_framing.frame_handler``."""

    def __init__(self, connection: t.Any, callback: Callable[..., t.Any]) -> None:
        self._connection = connection
        self._callback = callback
        self._partial: dict[int, _Partial] = {}

    def expects_content(self, channel: int) -> bool:
        """Whether a method's content is still to come there."""
        return channel in self._partial

    def __call__(self, frame: Frame) -> bool:
        """Take one frame; whether it completed a method, which was called back."""
        kind, channel, payload = frame
        self._connection.bytes_recv += 1
        if kind == HEARTBEAT:
            return False
        partial = self._partial.get(channel)
        if kind != (METHOD if partial is None else partial.expected):
            raise UnexpectedFrame(f"a frame of type {kind} on channel {channel}")
        if partial is not None:
            return self._content(channel, partial, payload)
        return self._method(channel, payload)

    def _method(self, channel: int, payload: bytes) -> bool:
        signature = struct.unpack_from(">HH", payload)
        if signature in _WITH_CONTENT:
            self._partial[channel] = _Partial(signature, payload)
            return False
        self._callback(channel, signature, payload, None)
        return True

    def _content(self, channel: int, partial: _Partial, payload: bytes) -> bool:
        if not partial.take(payload):
            return False
        del self._partial[channel]
        content = partial.content
        self._callback(channel, partial.signature, partial.payload, content)
        return True


class _Partial:
    """A method whose content is still arriving."""

    __slots__ = ("chunks", "content", "expected", "missing", "payload", "signature")

    def __init__(self, signature: Signature, payload: bytes) -> None:
        self.signature = signature
        self.payload = payload
        self.expected = HEADER
        self.content = Content(b"")
        self.chunks: list[bytes] = []
        self.missing = 0

    def take(self, payload: bytes) -> bool:
        """Take a header or a piece of the body; whether that was all."""
        if self.expected == HEADER:
            self.expected = BODY
            (self.missing,) = struct.unpack_from(">Q", payload, 4)
            self.content.properties, self.content.problem = properties_of(payload)
        else:
            self.chunks.append(payload)
            self.missing -= len(payload)
        if self.missing > 0:
            return False
        self.content.body = b"".join(self.chunks)
        return True


def properties_of(header: bytes) -> tuple[dict[str, t.Any], str | None]:
    """The basic properties in a content header, and what was wrong with the headers."""
    properties: dict[str, t.Any] = {}
    problem = None
    offset = 14
    try:
        for name, read in _present(header[12:14]):
            if read is None:
                properties[name], problem, offset = _table(header, offset)
            else:
                properties[name], offset = read(header, offset)
    except (IndexError, struct.error):
        problem = "the properties end before they should"
    return properties, problem


@functools.lru_cache(256)
def _present(flags: bytes) -> tuple[tuple[str, _Reader | None], ...]:
    """The properties that are there, and what reads them; the headers' is ``None``."""
    (bits,) = struct.unpack(">H", flags)
    return tuple(
        (name, _READERS.get(kind))
        for index, (name, kind) in enumerate(amqp.Message.PROPERTIES)
        if bits & 0x8000 >> index
    )


def readable(text: bytes) -> str:
    """Text from outside: what is not UTF-8 is written as ``\\xff``.

    Lone surrogates would keep the bytes, and then fail in the first log, database or
    JSON that the text gets into.
    """
    return text.decode("utf-8", "backslashreplace")


def _short(buffer: bytes, offset: int) -> tuple[str, int]:
    end = offset + 1 + buffer[offset]
    # As 'readable', without the call: there are many of these.
    return buffer[offset + 1 : end].decode("utf-8", "backslashreplace"), end


def _octet(buffer: bytes, offset: int) -> tuple[int, int]:
    return buffer[offset], offset + 1


def _longlong(buffer: bytes, offset: int) -> tuple[int, int]:
    return _LONGLONG.unpack_from(buffer, offset)[0], offset + 8


_Reader = Callable[[bytes, int], tuple[t.Any, int]]

_READERS: dict[str, _Reader] = {"s": _short, "o": _octet, "L": _longlong}


def _table(buffer: bytes, offset: int) -> tuple[dict[str, t.Any], str | None, int]:
    (size,) = struct.unpack_from(">I", buffer, offset)
    end = offset + 4 + size
    if (common := _common_table(buffer, offset + 4, end)) is not None:
        return common, None, end
    try:
        (table,), found = loads("F", buffer, offset)
    except Exception as error:
        # A date after the year 9999, tables nested a thousand deep, an unknown type.
        return {}, f"{type(error).__name__}: {error}", end
    if found != end or end > len(buffer):
        return {}, "the headers do not end where they should", end
    return {_name(key): value for key, value in table.items()}, None, end


def _common_table(buffer: bytes, offset: int, end: int) -> dict[str, t.Any] | None:
    """A table of texts, numbers and truths in UTF-8, or ``None`` for any other one."""
    table: dict[str, t.Any] = {}
    try:
        while offset < end:
            start = offset + 1
            kind = start + buffer[offset]
            name = str(buffer[start:kind], "utf-8")
            if buffer[kind] == 0x53:  # S, a text
                start = kind + 5
                offset = start + _LONG.unpack_from(buffer, kind + 1)[0]
                table[name] = str(buffer[start:offset], "utf-8")
            else:
                number, size = _NUMBERS[buffer[kind]]
                (table[name],) = number.unpack_from(buffer, kind + 1)
                offset = kind + 1 + size
    except (KeyError, IndexError, UnicodeDecodeError, struct.error):
        return None
    return table if offset == end <= len(buffer) else None


#: By type: l and L, I, d and t, as py-amqp reads them.
_NUMBERS = {
    ord(kind): (struct.Struct(layout), struct.calcsize(layout))
    for kind, layout in (
        ("l", ">q"),
        ("L", ">q"),
        ("I", ">i"),
        ("d", ">d"),
        ("t", ">?"),
    )
}


def _name(key: str | bytes) -> str:
    return key if isinstance(key, str) else readable(key)


def delivered(payload: bytes) -> tuple[str, int, bool, str, str]:
    """Basic.Deliver's tags of consumer and delivery, redelivered, exchange and key."""
    consumer_tag, offset = _short(payload, 4)
    tag, offset = _longlong(payload, offset)
    exchange, end = _short(payload, offset + 1)
    routing_key, _ = _short(payload, end)
    return consumer_tag, tag, bool(payload[offset] & 1), exchange, routing_key


class BasicDeliver(t.NamedTuple):
    """A delivery whose frames are all there."""

    consumer_tag: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    #: The payload of the content header.
    header: bytes
    body: bytes
    #: Where what comes behind it begins.
    end: int


def delivery_at(data: bytes, start: int, channel: int) -> BasicDeliver | None:
    """The delivery that begins there, if its body is one frame or none, and all of it
    is there; ``None`` leaves it, and every mistake in it, to the frames one by one.
    """
    if len(data) == start:
        return None  # After the last one: an exception would take longer.
    try:
        kind, number, size, method = _METHOD_HEAD.unpack_from(data, start)
        if method != _DELIVER or number != channel or kind != METHOD:
            return None
        at = start + size + OVERHEAD
        arguments = _arguments(data, start + 11, at - 1)
        head = _frame_of(HEADER, channel, data, at)
        end = at + len(head) + OVERHEAD
        (length,) = _LONGLONG.unpack_from(head, 4)
        body = _frame_of(BODY, channel, data, end) if length else b""
        if data[at - 1] != END or len(body) != length:
            return None
    except (ValueError, IndexError, struct.error):
        return None
    return BasicDeliver(*arguments, head, body, end + (length and length + OVERHEAD))


def _frame_of(kind: int, channel: int, data: bytes, start: int) -> bytes:
    """The payload of a frame of that kind; ``IndexError`` if not all of it is there."""
    found, number, size = _HEAD.unpack_from(data, start)
    end = start + 7 + size
    if data[end] != END or found != kind or number != channel:
        raise ValueError("something else is there")
    return data[start + 7 : end]


def _arguments(data: bytes, start: int, end: int) -> tuple[str, int, bool, str, str]:
    at = start + 1 + data[start]
    tag, flags = _TAG.unpack_from(data, at)
    exchange, routing_key = _shorts(data[at + 9 : end])
    return *_shorts(data[start:at]), tag, bool(flags & 1), exchange, routing_key


@functools.lru_cache(1024)
def _shorts(data: bytes) -> tuple[str, ...]:
    """Short texts one after the other: nearly always the same ones."""
    found, offset = [], 0
    while offset < len(data):
        text, offset = _short(data, offset)
        found.append(text)
    return tuple(found)


def with_readable_text(layout: str, payload: bytes) -> bytes:
    """A method's payload with its short strings in UTF-8, where they were not."""
    parts, offset = [payload[:4]], 4
    for kind in layout:
        start = offset
        if kind == "s":
            text, offset = _short(payload, offset)
            short = text.encode()[:255].decode("utf-8", "ignore").encode()
            parts.append(bytes([len(short)]) + short)
        else:
            offset += {"L": 8, "l": 4, "B": 2, "b": 1}[kind]
            parts.append(payload[start:offset])
    return b"".join(parts)


def frame_at(data: bytes, start: int) -> Frame:
    """The frame that begins there, of which :func:`has_frame` is true."""
    kind, channel, size = _HEAD.unpack_from(data, start)
    end = start + 7 + size
    if data[end] != END:
        raise UnexpectedFrame(f"a frame ends with {data[end]:#04x}")
    return kind, channel, data[start + 7 : end]


def has_frame(data: bytes, start: int) -> bool:
    """Whether a whole frame begins there."""
    there = len(data) - start
    if there < OVERHEAD:
        return False
    size: int = _HEAD.unpack_from(data, start)[2]
    return there >= size + OVERHEAD


def check_size(data: bytes, start: int, largest: int) -> None:
    """Refuse a frame that is not all there yet, and is larger than agreed upon.

    Something went wrong on the way: what it says next is no frame either, and to wait
    for it would fill the memory.
    """
    if len(data) - start >= OVERHEAD:
        size: int = _HEAD.unpack_from(data, start)[2]
        if size > largest:
            foreign = "" if data[start] in _KINDS else _not_amqp(data[start:])
            text = f"a frame of {size} bytes; {largest} are allowed"
            raise UnexpectedFrame(foreign + text)


def _not_amqp(data: bytes) -> str:
    return f"what answers does not speak AMQP 0-9-1, it sent {data[:30]!r}: "


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """The frame that acknowledges a delivery, or all up to it."""
    method = struct.pack(">HHQB", *spec.Basic.Ack, tag, multiple)
    return _frame(METHOD, channel, method)


def requeue(channel: int, tag: int, *, multiple: bool) -> bytes:
    """The frame that gives a delivery back, or all up to it (RabbitMQ's Basic.Nack)."""
    method = struct.pack(">HHQB", *spec.Basic.Nack, tag, multiple | 2)
    return _frame(METHOD, channel, method)


#: ``{"x-credit": {"credit": 0, "drain": False}}``; RabbitMQ wants a 64-bit number
#: there, which py-amqp does not write.
_NO_CREDIT = b"".join(
    (
        b"\x08x-creditF\x00\x00\x00\x18",
        b"\x06creditl" + bytes(8),
        b"\x05draint\x00",
    )
)


def consume_nothing(channel: int, queue: str, consumer_tag: str) -> bytes:
    """The frame that begins a consumer which is given no message, and is answered."""
    arguments = dumps("Bssbbbb", (0, queue, consumer_tag, *[False] * 4))
    table = struct.pack(">I", len(_NO_CREDIT)) + _NO_CREDIT
    method = struct.pack(">HH", *spec.Basic.Consume) + arguments + table
    return _frame(METHOD, channel, method)


def cancel(channel: int, consumer_tag: str, *, nowait: bool) -> bytes:
    """The frame that ends a consumer."""
    arguments = t.cast(bytes, dumps("sb", (consumer_tag, nowait)))
    return _frame(METHOD, channel, struct.pack(">HH", *spec.Basic.Cancel) + arguments)


def close_connection() -> bytes:
    """The frame that ends a connection; the broker answers with CloseOk."""
    arguments = t.cast(bytes, dumps("BsBB", (200, "Goodbye", 0, 0)))
    return _frame(METHOD, 0, struct.pack(">HH", *spec.Connection.Close) + arguments)


def publish(
    channel: int,
    method: bytes,
    properties: bytes,
    body: bytes,
    *,
    frame_max: int,
) -> list[bytes]:
    """The frames of one Basic.Publish; ``method`` comes from :func:`publish_method`."""
    header = _CONTENT_HEAD.pack(spec.Basic.CLASS_ID, 0, len(body)) + properties
    frames = [_frame(METHOD, channel, method), _frame(HEADER, channel, header)]
    size = frame_max - OVERHEAD
    if 0 < len(body) <= size:
        frames.append(_frame(BODY, channel, body))
        return frames
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    frames.extend(_frame(BODY, channel, piece) for piece in pieces)
    return frames


@functools.lru_cache(maxsize=1_000)
def publish_method(exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """Basic.Publish and its arguments.

    :raises struct.error: if a name is longer than 255 bytes.
    """
    arguments = dumps("Bssbb", (0, exchange, routing_key, mandatory, False))
    return struct.pack(">HH", *spec.Basic.Publish) + t.cast(bytes, arguments)


def header_size(properties: bytes) -> int:
    """How large the frame of a message's header is: it cannot be split."""
    return len(properties) + 12 + OVERHEAD


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"".join((_HEAD.pack(kind, channel, len(payload)), payload, b"\xce"))
