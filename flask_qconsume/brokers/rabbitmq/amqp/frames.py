"""AMQP frames: read tolerantly, built in batches. No I/O.

A message's properties hold any bytes that a publisher sent. py-amqp raises for text
that is not UTF-8 and for values that have no Python type, in the middle of a message.
That leaves the connection unusable, and the broker delivers the message again, for
ever. This module reads every message that the broker can deliver.
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
_FRAME_TYPES = frozenset([METHOD, HEADER, BODY, HEARTBEAT])

#: Type, channel and payload.
Frame = tuple[int, int, bytes]
#: Class and number of a method.
Signature = tuple[int, int]

#: Methods that a content header and a body follow.
_WITH_CONTENT = frozenset([spec.Basic.Return, spec.Basic.Deliver, spec.Basic.GetOk])

#: The head of a frame: type, channel and size of the payload. One octet follows the
#: payload.
_HEAD = struct.Struct(">BHI")
#: The same, followed by the method's class and number as one integer.
_METHOD_HEAD = struct.Struct(">BHII")
_DELIVER = spec.Basic.Deliver[0] << 16 | spec.Basic.Deliver[1]
#: Delivery tag and flags.
_TAG_AND_FLAGS = struct.Struct(">QB")
_LONG = struct.Struct(">I")
_LONGLONG = struct.Struct(">Q")
#: Before a message's properties: class, weight and size of the body.
_CONTENT_HEAD = struct.Struct(">HHQ")
#: Bytes of a frame beside its payload.
OVERHEAD = 8


class Content(amqp.Message):  # type: ignore[misc]
    """A message as py-amqp represents it, with a note if its headers are unreadable."""

    #: Why the headers could not be read; ``None`` if they could.
    problem: str | None = None


class FrameHandler:
    """Assembles AMQP methods and their contents from frames."""

    def __init__(self, connection: t.Any, callback: Callable[..., t.Any]) -> None:
        self._connection = connection
        self._callback = callback
        self._partial_methods: dict[int, _PartialMethod] = {}

    def expects_content(self, channel: int) -> bool:
        """Return whether this channel waits for a message's header or body."""
        return channel in self._partial_methods

    def __call__(self, frame: Frame) -> bool:
        """Add a frame; once a method is complete, call the callback with it.

        :returns: Whether the frame completed a method.
        """
        kind, channel, payload = frame
        self._connection.bytes_recv += 1
        if kind == HEARTBEAT:
            return False
        partial = self._partial_methods.get(channel)
        if kind != (METHOD if partial is None else partial.expected):
            raise UnexpectedFrame(f"a frame of type {kind} on channel {channel}")
        if partial is not None:
            return self._add_content(channel, partial, payload)
        return self._add_method(channel, payload)

    def _add_method(self, channel: int, payload: bytes) -> bool:
        signature = struct.unpack_from(">HH", payload)
        if signature in _WITH_CONTENT:
            self._partial_methods[channel] = _PartialMethod(signature, payload)
            return False
        self._callback(channel, signature, payload, None)
        return True

    def _add_content(
        self, channel: int, partial: _PartialMethod, payload: bytes
    ) -> bool:
        if not partial.add(payload):
            return False
        del self._partial_methods[channel]
        content = partial.content
        self._callback(channel, partial.signature, partial.payload, content)
        return True


class _PartialMethod:
    __slots__ = ("chunks", "content", "expected", "missing", "payload", "signature")

    def __init__(self, signature: Signature, payload: bytes) -> None:
        self.signature = signature
        self.payload = payload
        self.expected = HEADER
        self.content = Content(b"")
        self.chunks: list[bytes] = []
        self.missing = 0

    def add(self, payload: bytes) -> bool:
        """Add a frame of the message; return true once the message is complete."""
        if self.expected == HEADER:
            self.expected = BODY
            (self.missing,) = struct.unpack_from(">Q", payload, 4)
            self.content.properties, self.content.problem = parse_properties(payload)
        else:
            self.chunks.append(payload)
            self.missing -= len(payload)
        if self.missing > 0:
            return False
        self.content.body = b"".join(self.chunks)
        return True


def parse_properties(header: bytes) -> tuple[dict[str, t.Any], str | None]:
    """Parse the basic properties in a content header.

    :returns: The properties, and why the headers could not be read (``None`` if they
        could).
    """
    properties: dict[str, t.Any] = {}
    problem = None
    offset = 14
    try:
        for name, read in _find_readers(header[12:14]):
            if read is None:
                properties[name], problem, offset = _read_table(header, offset)
            else:
                properties[name], offset = read(header, offset)
    except (IndexError, struct.error):
        problem = "the properties end before they should"
    return properties, problem


@functools.lru_cache(256)
def _find_readers(flags: bytes) -> tuple[tuple[str, _Reader | None], ...]:
    """Return the names and parsers of the properties that ``flags`` mark as present.

    The parser for the headers is ``None``: :func:`parse_properties` parses these.
    """
    (bits,) = struct.unpack(">H", flags)
    return tuple(
        (name, _READERS.get(kind))
        for index, (name, kind) in enumerate(amqp.Message.PROPERTIES)
        if bits & 0x8000 >> index
    )


def decode_text(text: bytes) -> str:
    """Decode UTF-8; write other bytes as ``\\xff``.

    Lone surrogates would preserve the bytes, but the text would fail in the first log,
    database or JSON document that it gets into.
    """
    return text.decode("utf-8", "backslashreplace")


def _read_short(buffer: bytes, offset: int) -> tuple[str, int]:
    end = offset + 1 + buffer[offset]
    # As in decode_text, without the call, because this runs often.
    return buffer[offset + 1 : end].decode("utf-8", "backslashreplace"), end


def _read_octet(buffer: bytes, offset: int) -> tuple[int, int]:
    return buffer[offset], offset + 1


def _read_longlong(buffer: bytes, offset: int) -> tuple[int, int]:
    return _LONGLONG.unpack_from(buffer, offset)[0], offset + 8


_Reader = Callable[[bytes, int], tuple[t.Any, int]]

_READERS: dict[str, _Reader] = {"s": _read_short, "o": _read_octet, "L": _read_longlong}


def _read_table(buffer: bytes, offset: int) -> tuple[dict[str, t.Any], str | None, int]:
    (size,) = struct.unpack_from(">I", buffer, offset)
    end = offset + 4 + size
    if (common := _read_common_table(buffer, offset + 4, end)) is not None:
        return common, None, end
    try:
        (table,), table_end = loads("F", buffer, offset)
    except Exception as error:
        # A date after the year 9999, tables nested a thousand deep, an unknown type.
        return {}, f"{type(error).__name__}: {error}", end
    if table_end != end or end > len(buffer):
        return {}, "the headers do not end where they should", end
    return {_decode_name(key): value for key, value in table.items()}, None, end


def _read_common_table(buffer: bytes, offset: int, end: int) -> dict[str, t.Any] | None:
    """Parse a table with usual values only; return ``None`` for any other table."""
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


#: Layouts and sizes of numbers, by the type's letter, as py-amqp reads them.
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


def _decode_name(key: str | bytes) -> str:
    return key if isinstance(key, str) else decode_text(key)


def parse_deliver(payload: bytes) -> tuple[str, int, bool, str, str]:
    """Parse the arguments of AMQP's method Basic.Deliver.

    :returns: Consumer tag, delivery tag, redelivered, exchange and routing key.
    """
    return _parse_deliver_arguments(payload, 4, len(payload))


class BasicDeliver(t.NamedTuple):
    """A complete delivery, whose properties are not parsed yet."""

    consumer_tag: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    #: The payload of the content header.
    header: bytes
    body: bytes
    #: The offset of the bytes behind the delivery.
    end: int


def parse_delivery_at(data: bytes, start: int, channel: int) -> BasicDeliver | None:
    """Parse a whole delivery at an offset of the buffer, if it has a single body frame.

    :returns: ``None`` if the delivery is incomplete or has several body frames, or if
        no delivery begins here. The caller then reads single frames, and reports
        malformed ones.
    """
    if len(data) == start:
        return None  # The end of the buffer; an exception would take longer.
    try:
        kind, number, size, method = _METHOD_HEAD.unpack_from(data, start)
        if method != _DELIVER or number != channel or kind != METHOD:
            return None
        header_start = start + size + OVERHEAD
        arguments = _parse_deliver_arguments(data, start + 11, header_start - 1)
        header = _payload_at(HEADER, channel, data, header_start)
        end = header_start + len(header) + OVERHEAD
        (length,) = _LONGLONG.unpack_from(header, 4)
        body = _payload_at(BODY, channel, data, end) if length else b""
        if data[header_start - 1] != END or len(body) != length:
            return None
    except (ValueError, IndexError, struct.error):
        return None
    return BasicDeliver(*arguments, header, body, end + (length and length + OVERHEAD))


def _payload_at(kind: int, channel: int, data: bytes, start: int) -> bytes:
    """Return the payload of the frame at an offset of the buffer.

    :raises ValueError: if the frame is of another type or channel.
    :raises IndexError: if the frame has not arrived completely.
    """
    frame_type, frame_channel, size = _HEAD.unpack_from(data, start)
    end = start + 7 + size
    if data[end] != END or frame_type != kind or frame_channel != channel:
        raise ValueError("another frame")
    return data[start + 7 : end]


def _parse_deliver_arguments(
    data: bytes, start: int, end: int
) -> tuple[str, int, bool, str, str]:
    tag_start = start + 1 + data[start]
    tag, flags = _TAG_AND_FLAGS.unpack_from(data, tag_start)
    exchange, routing_key = _read_shorts(data[tag_start + 9 : end])
    return (
        *_read_shorts(data[start:tag_start]),
        tag,
        bool(flags & 1),
        exchange,
        routing_key,
    )


@functools.lru_cache(1024)
def _read_shorts(data: bytes) -> tuple[str, ...]:
    """Parse consecutive short strings of AMQP; results are cached, as most repeat."""
    short_strings, offset = [], 0
    while offset < len(data):
        text, offset = _read_short(data, offset)
        short_strings.append(text)
    return tuple(short_strings)


def escape_short_strings(layout: str, payload: bytes) -> bytes:
    """Escape bytes that are not UTF-8 in the short strings of an AMQP method.

    :param layout: One letter of py-amqp for each argument's type, as in ``"Bsss"``.
    """
    parts, offset = [payload[:4]], 4
    for kind in layout:
        start = offset
        if kind == "s":
            text, offset = _read_short(payload, offset)
            short = text.encode()[:255].decode("utf-8", "ignore").encode()
            parts.append(bytes([len(short)]) + short)
        else:
            offset += {"L": 8, "l": 4, "B": 2, "b": 1}[kind]
            parts.append(payload[start:offset])
    return b"".join(parts)


def parse_frame_at(data: bytes, start: int) -> Frame:
    """Parse the frame at an offset; :func:`has_frame` must be true there."""
    kind, channel, size = _HEAD.unpack_from(data, start)
    end = start + 7 + size
    if data[end] != END:
        raise UnexpectedFrame(f"a frame ends with {data[end]:#04x}")
    return kind, channel, data[start + 7 : end]


def has_frame(data: bytes, start: int) -> bool:
    """Return whether a whole frame has arrived at an offset."""
    available = len(data) - start
    if available < OVERHEAD:
        return False
    size: int = _HEAD.unpack_from(data, start)[2]
    return available >= size + OVERHEAD


def check_size(data: bytes, start: int, largest: int) -> None:
    """Refuse an incomplete frame that is larger than client and broker agreed.

    The bytes are corrupt, or are not AMQP; waiting for the rest would fill the memory.

    :param largest: The highest allowed size of a frame's payload, in bytes.
    :raises UnexpectedFrame: if the payload is larger.
    """
    if len(data) - start >= OVERHEAD:
        size: int = _HEAD.unpack_from(data, start)[2]
        if size > largest:
            is_frame = data[start] in _FRAME_TYPES
            foreign = "" if is_frame else _describe_foreign(data[start:])
            text = f"a frame of {size} bytes; {largest} are allowed"
            raise UnexpectedFrame(foreign + text)


def _describe_foreign(data: bytes) -> str:
    return f"what answers does not speak AMQP 0-9-1, it sent {data[:30]!r}: "


def build_ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Build the frame that acknowledges a delivery, or all up to it (``multiple``)."""
    method = struct.pack(">HHQB", *spec.Basic.Ack, tag, multiple)
    return build_frame(METHOD, channel, method)


def build_requeue(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Build the frame that requeues a delivery, or all up to it (``multiple``)."""
    method = struct.pack(">HHQB", *spec.Basic.Nack, tag, multiple | 2)
    return build_frame(METHOD, channel, method)


#: ``{"x-credit": {"credit": 0, "drain": False}}``. RabbitMQ requires a 64-bit number,
#: which py-amqp does not write.
_NO_CREDIT = b"".join(
    (
        b"\x08x-creditF\x00\x00\x00\x18",
        b"\x06creditl" + bytes(8),
        b"\x05draint\x00",
    )
)


def build_idle_consume(channel: int, queue: str, consumer_tag: str) -> bytes:
    """Build the frame that starts a consumer without credit, which gets nothing."""
    arguments = dumps("Bssbbbb", (0, queue, consumer_tag, *[False] * 4))
    table = struct.pack(">I", len(_NO_CREDIT)) + _NO_CREDIT
    method = struct.pack(">HH", *spec.Basic.Consume) + arguments + table
    return build_frame(METHOD, channel, method)


def build_cancel(channel: int, consumer_tag: str, *, nowait: bool) -> bytes:
    """Build the frame that ends a consumer; the broker answers unless ``nowait``."""
    arguments = t.cast(bytes, dumps("sb", (consumer_tag, nowait)))
    return build_frame(
        METHOD, channel, struct.pack(">HH", *spec.Basic.Cancel) + arguments
    )


def build_close() -> bytes:
    """Build the frame that closes a connection; the broker answers with CloseOk."""
    arguments = t.cast(bytes, dumps("BsBB", (200, "Goodbye", 0, 0)))
    return build_frame(
        METHOD, 0, struct.pack(">HH", *spec.Connection.Close) + arguments
    )


def build_publish(
    channel: int,
    method: bytes,
    properties: bytes,
    body: bytes,
    *,
    frame_max: int,
) -> list[bytes]:
    """Build the frames of a Basic.Publish.

    :param method: The method's payload, from :func:`build_publish_method`.
    """
    header = _CONTENT_HEAD.pack(spec.Basic.CLASS_ID, 0, len(body)) + properties
    frames = [
        build_frame(METHOD, channel, method),
        build_frame(HEADER, channel, header),
    ]
    size = frame_max - OVERHEAD
    if 0 < len(body) <= size:
        frames.append(build_frame(BODY, channel, body))
        return frames
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    frames.extend(build_frame(BODY, channel, piece) for piece in pieces)
    return frames


@functools.lru_cache(maxsize=1_000)
def build_publish_method(exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """Build the payload of a Basic.Publish.

    :raises struct.error: if a name is longer than 255 bytes.
    """
    arguments = dumps("Bssbb", (0, exchange, routing_key, mandatory, False))
    return struct.pack(">HH", *spec.Basic.Publish) + t.cast(bytes, arguments)


def header_frame_size(properties: bytes) -> int:
    """Return the size in bytes of the frame that holds a message's properties."""
    return len(properties) + 12 + OVERHEAD


def build_frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Build a frame of any type."""
    return b"".join((_HEAD.pack(kind, channel, len(payload)), payload, b"\xce"))
