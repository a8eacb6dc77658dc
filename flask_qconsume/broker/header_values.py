"""What a header may hold: what AMQP can write, on whatever broker. No I/O.

So an app that was tried out in memory does not fail on RabbitMQ. What a broker cannot
write of it still is that broker's to refuse.
"""

from __future__ import annotations

import datetime
import decimal
import math
import typing as t
from collections.abc import Mapping

from ..errors import PublishError
from ..text import quote

#: What is written whatever its value is.
_ALWAYS = frozenset((bool, bytes, type(None)))

#: Of the largest number of 31 bits.
_DIGITS = 10

#: How deep lists and mappings may nest: well within what any broker's client can write.
_DEEPEST = 50


def check_values(headers: Mapping[str, t.Any]) -> None:
    """Refuse headers that not every broker could carry.

    :raises PublishError: that names the header; nothing was sent.
    """
    for name, value in headers.items():
        kind = type(value)
        if kind in _ALWAYS or (kind is str and value.isascii()):
            continue
        if problem := _problem(value, _DEEPEST):
            raise PublishError(
                f"The header {quote(name)} cannot be sent: {problem}. Headers hold"
                " texts, whole numbers of 64 bits, floats, True, False, None, bytes,"
                " decimals, times (datetime), and lists and mappings of these."
            )


def _problem(value: t.Any, depth: int) -> str | None:
    """Why a value cannot be written; ``None`` if it can."""
    if isinstance(value, str):
        return None if _is_utf8(value) else f"{quote(value)} is no UTF-8"
    if isinstance(value, (bool, bytes, type(None))):
        return None
    if isinstance(value, (list, tuple, dict)):
        return _problem_within(value, depth - 1)
    for kind, check in _CHECKS.items():
        if isinstance(value, kind):
            return None if check(value) else f"its '{kind.__name__}' is out of range"
    return f"it holds a '{type(value).__name__}'"


def _problem_within(value: t.Any, depth: int) -> str | None:
    if not depth:
        return f"it nests deeper than {_DEEPEST}"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not _is_utf8(key, 255):
                return f"its key {quote(key)} must be a text of up to 255 bytes"
        value = value.values()
    problems = (_problem(each, depth) for each in value)
    return next((each for each in problems if each), None)


def _is_utf8(text: str, longest: float = math.inf) -> bool:
    """Whether a text can be written; lone surrogates would arrive as something else."""
    try:
        return len(text.encode()) <= longest
    except UnicodeEncodeError:
        return False


def _is_short_decimal(value: decimal.Decimal) -> bool:
    """AMQP has a byte for the places behind the point, and 32 bits for the digits."""
    if not value.is_finite():
        return False
    _, digits, exponent = value.as_tuple()
    if not -255 <= t.cast(int, exponent) <= 0 or len(digits) > _DIGITS:
        return False
    # The sign is one of the bits.
    return int("".join(map(str, digits))) < 2**31


def _is_time(value: datetime.datetime) -> bool:
    """AMQP's times are seconds from 1970 on."""
    try:
        return value.utctimetuple() >= _EPOCH
    except OverflowError:
        return False


_EPOCH = datetime.datetime(1970, 1, 1).utctimetuple()

_CHECKS: dict[type, t.Callable[[t.Any], bool]] = {
    int: lambda value: -(2**63) <= value < 2**63,
    # Most brokers carry headers as JSON, which has no NaN and no infinity.
    float: math.isfinite,
    decimal.Decimal: _is_short_decimal,
    datetime.datetime: _is_time,
}
