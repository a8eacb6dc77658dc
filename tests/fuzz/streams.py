"""Streams of AMQP's frames, made of choices: mostly well-formed, seldom quite."""

from __future__ import annotations

import struct
from collections.abc import Callable
from collections.abc import Iterator

from amqp import spec

from flask_qconsume.brokers.rabbitmq.amqp import frames as frames

from .taps import Taps

#: All that brings content, and some of what else a broker says unasked.
_METHODS = (
    spec.Basic.Deliver,
    spec.Basic.Return,
    spec.Basic.GetOk,
    spec.Basic.Ack,
    spec.Basic.Nack,
    spec.Basic.Cancel,
    spec.Basic.ConsumeOk,
    spec.Basic.CancelOk,
    spec.Channel.Flow,
    spec.Channel.Close,
    spec.Connection.Blocked,
    spec.Connection.Close,
)


def stream(taps: Taps) -> bytes:
    """Bytes as they are, or frames in which at least the lengths are right."""
    if taps.pick((True, False)):
        return taps.rest()
    written = b"".join(_frames(taps))
    return written[: len(written) - taps.number()] if taps.pick((0, 0, 1)) else written


def _frames(taps: Taps) -> Iterator[bytes]:
    while taps:
        yield taps.pick(_SHAPES)(taps)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _channel(taps: Taps) -> int:
    return taps.pick((1, 1, 1, 2, 2, 0, 7))


def _method(taps: Taps) -> bytes:
    return _frame(1, _channel(taps), _arguments(taps, taps.pick(_METHODS)))


def _arguments(taps: Taps, method: tuple[int, int]) -> bytes:
    return struct.pack(">HH", *method) + taps.piece()


def _header(taps: Taps) -> bytes:
    size = taps.number()
    payload = struct.pack(">HHQ", 60, 0, size) + taps.piece()
    return _frame(2, _channel(taps), payload)


def _body(taps: Taps) -> bytes:
    return _frame(3, _channel(taps), taps.piece())


def _heartbeat(taps: Taps) -> bytes:
    return _frame(8, _channel(taps), b"")


def _any(taps: Taps) -> bytes:
    return _frame(taps.number(), taps.number(2), taps.piece())


def _delivery(taps: Taps) -> bytes:
    """A whole message, its body in some pieces, with heartbeats in between."""
    channel = _channel(taps)
    names = [_short(taps.piece()) for _ in range(3)]
    number = struct.pack(">QB", taps.number(2), taps.number())
    method = struct.pack(">HH", *spec.Basic.Deliver) + names[0] + number
    method += names[1] + names[2]
    bodies = [taps.piece() for _ in range(taps.pick((0, 1, 1, 2, 3)))]
    size = sum(map(len, bodies)) + taps.pick((0, 0, 0, 0, 0, 1, -1))
    header = struct.pack(">HHQ", 60, 0, max(0, size)) + properties(taps)
    written = [_frame(1, channel, method), _frame(2, channel, header)]
    written += [_frame(3, channel, body) for body in bodies if body]
    beat = _frame(frames.HEARTBEAT, 0, b"") if taps.pick((0, 0, 1)) else b""
    return beat.join(written)


def properties(taps: Taps) -> bytes:
    """Properties of which the lengths are right, or anything."""
    if taps.pick((0, 0, 0, 1)):
        return taps.piece()
    flags = taps.number(2) & 0xFFFC
    written = struct.pack(">H", flags)
    for index, kind in enumerate("ssFoossssLssss"):
        if flags & 0x8000 >> index:
            written += _VALUES[kind](taps)
    return written


def _short(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw


def _long(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


def _table(taps: Taps, depth: int = 3) -> bytes:
    pairs = [
        _short(taps.take(taps.number() % 8)) + _item(taps, depth)
        for _ in range(taps.number() % 5)
    ]
    return _long(b"".join(pairs))


def _array(taps: Taps, depth: int) -> bytes:
    return _long(b"".join(_item(taps, depth) for _ in range(taps.number() % 4)))


def _item(taps: Taps, depth: int) -> bytes:
    """A value of a table, of any type there is, and of some there are not."""
    kind = taps.pick("SSSIltdbBUuiLfDTVxsFA?")
    if kind in "FA" and not depth:
        kind = "V"
    if kind == "F":
        return b"F" + _table(taps, depth - 1)
    if kind == "A":
        return b"A" + _array(taps, depth - 1)
    if kind in "Sx":
        return kind.encode() + _long(taps.piece())
    return kind.encode() + taps.take(_SIZES.get(kind, 0)).ljust(_SIZES.get(kind, 0))


_SIZES = {
    **dict.fromkeys("bBt", 1),
    **dict.fromkeys("Uus", 2),
    **dict.fromkeys("Iif", 4),
    "D": 5,
    **dict.fromkeys("lLdT", 8),
}

_VALUES: dict[str, Callable[[Taps], bytes]] = {
    "s": lambda taps: _short(taps.piece()),
    "o": lambda taps: bytes([taps.number()]),
    "L": lambda taps: struct.pack(">Q", taps.number(8)),
    "F": _table,
}

_SHAPES = (
    _delivery,
    _delivery,
    _delivery,
    _method,
    _header,
    _body,
    _heartbeat,
    _any,
)
