"""A stream of bytes as if it came from RabbitMQ, read by us and by py-amqp.

Both are the real connections, with channels that have consumers; only the socket is
not there: what it would have brought is given, in pieces.
"""

from __future__ import annotations

import itertools
import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import amqp
from amqp import spec
from amqp import transport as sockets

from flask_qconsume.brokers.rabbitmq import incoming
from flask_qconsume.brokers.rabbitmq.amqp import frames as frames
from flask_qconsume.brokers.rabbitmq.amqp import transport as ours
from flask_qconsume.message import Message

CHANNELS = (1, 2)

Event = tuple[t.Any, ...]
#: How many bytes come at a time: always the same, or so many in turn.
Size = int | Sequence[int]


class NotReopened(amqp.Channel):  # type: ignore[misc]
    """py-amqp's channel, left closed when the broker closed it, as ours is.

    It also hears what it did not ask for, the beginning of a consumer.
    """

    def _setup_listeners(self) -> None:
        super()._setup_listeners()
        self._callbacks[spec.Basic.ConsumeOk] = lambda tag: None

    def _do_revive(self) -> None:
        self.is_open = False


class _Always(dict[str, t.Any]):
    """The same for any consumer's tag, also once it was taken."""

    def __init__(self, value: t.Any) -> None:
        self._value = value

    def __getitem__(self, tag: str) -> t.Any:
        return self._value

    def pop(self, tag: str, *default: t.Any) -> t.Any:
        return self._value


class Heard(t.NamedTuple):
    """What came of a stream, and why that was all."""

    events: list[Event]
    error: Exception

    @property
    def to_the_end(self) -> bool:
        """Whether nothing but the end of the stream ended it."""
        return isinstance(self.error, OSError)

    @property
    def refused_a_size(self) -> bool:
        """Whether a frame was larger than allowed, for which py-amqp would wait."""
        return "are allowed" in str(self.error)


def pieces(stream: bytes, size: Size) -> Callable[[int], bytes]:
    """What stands for ``recv``: so many bytes at a time, then none for ever."""
    at = 0
    sizes = itertools.cycle((size,) if isinstance(size, int) else size)

    def recv(wanted: int) -> bytes:
        nonlocal at
        found = stream[at : at + min(next(sizes), wanted)]
        at += len(found)
        return found

    return recv


def heard_by_us(stream: bytes, size: Size) -> Heard:
    """What our transport makes of a stream that comes in pieces of that size."""
    return _heard(ours.Connection(), ours.TCP("nowhere"), stream, size)


def heard_by_py_amqp(stream: bytes, size: Size = 4096) -> Heard:
    """The same by py-amqp."""
    connection = amqp.Connection()
    connection.Channel = NotReopened
    return _heard(connection, sockets.TCPTransport("nowhere"), stream, size)


def _heard(connection: t.Any, transport: t.Any, stream: bytes, size: Size) -> Heard:
    events: list[Event] = []
    _wire(connection, transport, stream, size)
    connection.frame_writer = lambda kind, channel, method, *_: events.append(
        ("written", channel, method)
    )
    connection.on_blocked = lambda reason: events.append(("blocked", text(reason)))
    for number in CHANNELS:
        _listen(connection.Channel(connection, number), number, events)
    return Heard(events, _read_all(connection))


def _wire(connection: t.Any, transport: t.Any, stream: bytes, size: Size) -> None:
    """Connect them, as far as that goes without a socket."""
    transport._quick_recv = pieces(stream, size)
    transport._read_buffer = b""
    transport.connected = True
    connection.transport = transport
    connection.frame_writer = lambda *frame: None
    connection.on_inbound_frame = connection.frame_handler_cls(
        connection, connection.on_inbound_method
    )


def _read_all(connection: t.Any) -> Exception:
    try:
        while True:
            if isinstance(connection, ours.Connection):
                connection.read_available()
            else:
                connection.on_inbound_frame(connection.transport.read_frame())
    except Exception as error:
        return error


def _listen(channel: t.Any, number: int, events: list[Event]) -> None:
    def delivered(content: t.Any) -> None:
        events.append(("delivered", number, *_info(content), *_content(content)))

    def returned(error: t.Any, exchange: str, key: str, content: t.Any) -> None:
        names = text(error.reply_text), text(exchange), text(key)
        events.append(
            ("returned", number, error.reply_code, *names, *_content(content))
        )

    channel.is_open = True
    channel.callbacks = _Always(delivered)
    channel.events["basic_return"].add(returned)
    for name in ("basic_ack", "basic_nack"):
        channel.events[name].add(lambda *args: events.append(("settled", *args)))
    channel.cancel_callbacks = _Always(
        lambda tag: events.append(("cancelled", number, text(tag)))
    )


def _info(content: t.Any) -> tuple[t.Any, ...]:
    return tuple(
        text(value) if isinstance(value, str) else value
        for value in content.delivery_info.values()
    )


def _content(content: t.Any) -> tuple[t.Any, ...]:
    # Where there is none, py-amqp has an empty text.
    return bytes(content.body or b""), named(content.properties)


def named(properties: dict[str, t.Any]) -> str:
    """Properties as a text, in which NaN is NaN, and names that are no UTF-8 texts."""
    table = properties.get("application_headers")
    if table is not None:
        named = {
            name if isinstance(name, str) else frames.decode_text(name): value
            for name, value in table.items()
        }
        properties = {**properties, "application_headers": named}
    return repr(properties)


def text(raw: str) -> str:
    """A text of py-amqp's, which lets surrogates pass, as we write it."""
    return raw.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")


class Written(t.NamedTuple):
    """A delivery, as its frames say by the letter of the standard."""

    channel: int
    method: bytes
    body: bytes

    @property
    def arguments(self) -> tuple[str, int, bool, str, str]:
        tag, rest = _short(self.method[4:])
        number, again = int.from_bytes(rest[:8], "big"), bool(rest[8] & 1)
        exchange, rest = _short(rest[9:])
        return tag, number, again, exchange, _short(rest)[0]


def by_the_book(stream: bytes) -> Iterator[Written]:
    """The deliveries in a stream, up to the first thing that is none of AMQP's."""
    partial: dict[int, list[bytes]] = {}
    while len(stream) >= 8:
        kind, channel = stream[0], int.from_bytes(stream[1:3], "big")
        size = int.from_bytes(stream[3:7], "big")
        payload, end, stream = stream[7 : 7 + size], stream[7 + size :], b""
        if end[:1] != b"\xce":
            return
        stream = end[1:]
        if kind == 8:
            continue
        parts = partial.setdefault(channel, [])
        if kind != min(len(parts), 2) + 1:
            return
        parts.append(payload)
        if kind == 1:
            if tuple(_shorts(payload)) not in frames._WITH_CONTENT:
                parts.clear()
            continue
        if len(b"".join(parts[2:])) >= int.from_bytes(parts[1][4:12], "big"):
            method, _, *body = partial.pop(channel)
            if tuple(_shorts(method)) == spec.Basic.Deliver:
                yield Written(channel, method, b"".join(body))


def _short(data: bytes) -> tuple[str, bytes]:
    end = 1 + data[0]
    return data[1:end].decode("utf-8", "backslashreplace"), data[end:]


def _shorts(payload: bytes) -> tuple[int, int]:
    return int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")


def messages(stream: bytes, size: Size) -> list[Message]:
    """The messages that a link makes of what is delivered."""
    found: list[Message] = []

    def delivered(delivery: frames.BasicDeliver) -> None:
        found.append(incoming.convert_delivery(delivery, "q"))

    def arrived(content: frames.Content) -> None:
        found.append(incoming.convert_content(content, "q"))

    connection = ours.Connection()
    _wire(connection, ours.TCP("nowhere"), stream, size)
    for number in CHANNELS:
        channel = connection.Channel(connection, number)
        channel.is_open = True
        channel.on_raw_delivery = delivered
        channel.callbacks = _Always(arrived)
        channel.cancel_callbacks = _Always(lambda tag: None)
        channel.events["basic_return"].add(lambda *_: None)
    _read_all(connection)
    return found


def compare(stream: bytes, size: Size) -> None:
    """Fail unless we read a stream as py-amqp does, or go on where it gives up."""
    us, them = heard_by_us(stream, size), heard_by_py_amqp(stream)
    for our_event, their_event in zip(us.events, them.events, strict=False):
        assert our_event == their_event
    assert len(us.events) >= len(them.events), (us, them)
    if them.to_the_end and not us.refused_a_size:
        assert us.to_the_end, us.error
        assert len(us.events) == len(them.events)
    _delivers_what_is_written(us, stream)
    assert repr(messages(stream, size)) == repr(messages(stream, 1))


def _delivers_what_is_written(us: Heard, stream: bytes) -> None:
    """Also where py-amqp has given up: nothing but the messages that are there."""
    found = [event for event in us.events if event[0] == "delivered"]
    for event, written in itertools.zip_longest(found, by_the_book(stream)):
        if event is None:
            break
        assert (event[1], event[7]) == (written.channel, written.body)
        assert event[2:7] == written.arguments
