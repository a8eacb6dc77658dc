"""Values of Python's, made of choices: what headers, bodies and settings may hold."""

from __future__ import annotations

import datetime
import decimal
import json
import typing as t
import uuid
from collections.abc import Callable

from .taps import Taps

#: Names with a meaning for the package or a broker.
NAMES = (
    *("x", "ä", "", "redelivered", "compression", "CC", "x-death", "content-type"),
    *("message-id", "correlation-id", "x-qconsume-key", "x-qconsume-attempt"),
    *("x-qconsume-deaths", "x-qconsume-published-at", "x-qconsume-expires-at"),
    *("x-qconsume-exchange", "x-qconsume-routing-key", "x-qconsume-due"),
    *("x-qconsume-json", "x-qconsume-bytes", "x-qconsume-type", "x-qconsume-reason"),
    *("x-qconsume-error", "x-qconsume-changed-headers", "x-qconsume-unreadable"),
    *("x-qconsume-died-at", "x-qconsume-details", "__type__", "__value__"),
)

#: Types that kombu's JSON knows, and one that it does not.
_MARKS = ("datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "other")

_DATE = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, datetime.timezone.utc)


def name(taps: Taps) -> str:
    """A name of a header: a known one, or any text."""
    return taps.pick(NAMES) if taps.pick((False, False, True)) else taps.text()


def mapping(taps: Taps, depth: int = 3) -> dict[str, t.Any]:
    """A mapping of names to values."""
    return {name(taps): value(taps, depth) for _ in range(taps.number() % 6)}


def value(taps: Taps, depth: int = 3) -> t.Any:
    """Return any value; containers are nested to this depth, or very deep."""
    return taps.pick(_KINDS if depth else _PLAIN)(taps, depth - 1)


def anything(taps: Taps) -> t.Any:
    """A value, or what no message can hold."""
    if taps.pick((False, False, True)):
        return taps.pick((*_ODD, [taps.pick(_ODD)], {taps.text(): taps.pick(_ODD)}))
    return value(taps)


def plain(taps: Taps, depth: int = 3) -> t.Any:
    """A value that JSON can hold."""
    try:
        return json.loads(json.dumps(value(taps, depth), default=str, skipkeys=True))
    except ValueError:
        return "a number of too many digits"


def _marked(taps: Taps, depth: int) -> dict[str, t.Any]:
    """What kombu's JSON takes for a value of another type, or not."""
    given = plain(taps, depth) if depth > 0 else taps.text()
    return {"__type__": taps.pick(_MARKS), "__value__": given}


def _deep(taps: Taps, depth: int) -> t.Any:
    found: t.Any = taps.text()
    for _ in range(taps.number() % 60):
        found = [found] if taps.number() % 2 else {"x": found}
    return found


_PLAIN: tuple[Callable[[Taps, int], t.Any], ...] = (
    lambda taps, depth: taps.text(),
    lambda taps, depth: taps.text(),
    lambda taps, depth: None,
    lambda taps, depth: taps.pick((False, True)),
    lambda taps, depth: taps.number(),
    lambda taps, depth: taps.number(8) - 2**63,
    lambda taps, depth: taps.number(2) / 7,
    lambda taps, depth: taps.pick((1e300, -0.0, float("nan"), float("inf"))),
    lambda taps, depth: taps.pick((2**64, -(2**63) - 1, 10**400)),
    lambda taps, depth: taps.piece(),
    lambda taps, depth: decimal.Decimal(taps.number(3)).scaleb(taps.number() - 128),
    lambda taps, depth: decimal.Decimal(taps.pick(("NaN", "Infinity", "-0"))),
    lambda taps, depth: _DATE + datetime.timedelta(hours=taps.number(2) - 30_000),
    lambda taps, depth: uuid.UUID(int=taps.number(8)),
)

_KINDS = (
    *_PLAIN,
    mapping,
    lambda taps, depth: [value(taps, depth) for _ in range(taps.number() % 4)],
    lambda taps, depth: tuple(value(taps, depth) for _ in range(taps.number() % 3)),
    _marked,
    _marked,
    _deep,
)

_ODD = (
    10**4_400,
    decimal.Decimal("9" * 4_400),
    object(),
    {7: "x"},
    b"\xff",
    iter(()),
    *([], (), {}, True, float("nan"), bytearray(b"x"), frozenset(("x",)), str),
)
