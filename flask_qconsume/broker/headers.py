"""The ``x-qconsume-*`` headers, and checks of all headers' values. No I/O.

Any program can set headers, so an ``x-qconsume-*`` header with an invalid value counts
as absent.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import traceback
import typing as t
from collections.abc import Iterable
from collections.abc import Mapping

from ..errors import InvalidMessage
from ..errors import PublishError
from ..message import Message
from ..text import quote
from ..text import shorten
from ..text import stringify

PREFIX = "x-qconsume-"

ATTEMPT = PREFIX + "attempt"
DEATHS = PREFIX + "deaths"
SUSPECTED_AT = PREFIX + "suspected-at"
KEY = PREFIX + "key"
PUBLISHED_AT = PREFIX + "published-at"
EXPIRES_AT = PREFIX + "expires-at"
#: The exchange and key of the first publish: retries come by the default exchange.
EXCHANGE = PREFIX + "exchange"
ROUTING_KEY = PREFIX + "routing-key"

REASON = PREFIX + "reason"
ERROR = PREFIX + "error"
TRACEBACK = PREFIX + "traceback"
DETAILS = PREFIX + "details"
CONSUMER = PREFIX + "consumer"
QUEUE = PREFIX + "queue"
ATTEMPTS = PREFIX + "attempts"
DIED_AT = PREFIX + "died-at"
#: The span of the previous attempt, and of the last one before a replay: each as a
#: ``traceparent`` of W3C. Only workers that trace write the first one.
PREVIOUS_ATTEMPT = PREFIX + "previous-attempt"
REPLAYED_ATTEMPT = PREFIX + "replayed-attempt"
#: Marks a dead letter that its full queue refused: to be sent again, not handled.
PARKED = PREFIX + "parked"

#: Names of headers that a copy lacks, since their values could not be encoded.
CHANGED = PREFIX + "changed-headers"

#: W3C's header with the span that created a message, which many programs write.
_TRACEPARENT = "traceparent"

_DEAD_LETTER_HEADERS = (
    REASON,
    ERROR,
    TRACEBACK,
    DETAILS,
    CONSUMER,
    QUEUE,
    ATTEMPTS,
    DIED_AT,
)

#: RabbitMQ also routes by these headers, so a copy that kept them would reach those
#: queues a second time. https://www.rabbitmq.com/docs/sender-selected
_ROUTING_HEADERS = ("CC", "BCC")

#: Characters. All headers must fit into one AMQP frame with the other properties
#: (frame_max is 128 KiB by default, and 4 KiB at least); only a traceback is long.
MAX_TRACEBACK = 16_000
MAX_ERROR = 1_000
MAX_DETAILS = 8_000

#: Values and keys in one header, or envelope, that is encoded as JSON.
MAX_ITEMS = 100_000

#: The end of the year 9999, the latest time of AMQP clients; seconds since 1970.
_LAST_TIME = 253_402_300_799


def read_int(headers: Mapping[str, t.Any], name: str, default: int) -> int:
    """Read a header as a whole number from ``default`` to 1,000,000."""
    value = headers.get(name)
    if type(value) is not int:  # A bool is an int for isinstance().
        return default
    return min(max(value, default), 1_000_000)


def read_time(headers: Mapping[str, t.Any], name: str) -> float | None:
    """Read a header as seconds since 1970; ``None`` unless it is a time."""
    value = headers.get(name)
    if type(value) is not float and type(value) is not int:
        return None
    # A copy also carries it as its AMQP timestamp, which has this range.
    return float(value) if 0 <= value <= _LAST_TIME else None


def read_text(headers: Mapping[str, t.Any], name: str) -> str | None:
    """Read a header as a text; ``None`` unless it is a text."""
    value = headers.get(name)
    return value if isinstance(value, str) else None


def select_own(headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Select the ``x-qconsume-*`` headers."""
    return {name: headers[name] for name in headers if name.startswith(PREFIX)}


def find_oldest_suspect(messages: Iterable[Message]) -> float | None:
    """Return the time at which the first of some messages became a suspect."""
    since = (read_time(message.headers, SUSPECTED_AT) for message in messages)
    return min(
        (suspected_at for suspected_at in since if suspected_at is not None),
        default=None,
    )


def make_retry_headers(message: Message, attempt: int) -> dict[str, t.Any]:
    """Create the headers of the copy that is delivered as attempt number ``attempt``.

    A message that failed with an error did not kill its process, so the count of its
    crashes is dropped.
    """
    headers = {**_keep_headers(message), ATTEMPT: attempt}
    headers.pop(DEATHS, None)
    headers.pop(SUSPECTED_AT, None)
    return headers


def make_suspect_headers(message: Message, deaths: int, now: float) -> dict[str, t.Any]:
    """Create the headers of a copy for the queue of suspects."""
    since = read_time(message.headers, SUSPECTED_AT) or now
    return {
        **_keep_headers(message),
        ATTEMPT: message.attempt,
        DEATHS: deaths,
        SUSPECTED_AT: since,
    }


def make_dead_letter_headers(
    message: Message,
    consumer: str,
    queue: str,
    reason: str,
    error: BaseException | None,
    now: float,
) -> dict[str, t.Any]:
    """Create the headers of a dead letter.

    The message's attempt is left out: a consumer of dead letters starts with attempt 1.
    The message's expiration is left out: a dead letter is kept for longer.
    """
    headers = {
        **_keep_headers(message),
        REASON: _fit_text(reason, MAX_ERROR),
        CONSUMER: consumer,
        QUEUE: queue,
        ATTEMPTS: message.attempt,
        DEATHS: message.deaths,
        DIED_AT: now,
    }
    for name in (ATTEMPT, EXPIRES_AT):
        headers.pop(name, None)
    if error is not None:
        headers |= _make_error_headers(error)
    return headers


def keep_simple_values(headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Drop headers with complex values, and list their names in another header."""
    simple_headers = {
        name: value for name, value in headers.items() if is_simple(value)
    }
    dropped_names = ", ".join(name for name in headers if name not in simple_headers)
    return {**simple_headers, CHANGED: _fit_text(dropped_names, MAX_ERROR)}


def is_simple(value: t.Any) -> bool:
    """Return whether a value is a text, a number or ``None``."""
    return isinstance(value, (str, int, float, type(None)))


def make_replay_headers(headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Create the headers of a dead letter that goes back to its queue.

    The headers of the failure and the expiration are left out, so that the message is
    handled like a new one. A traced message starts a new trace, which links the last
    attempt.
    """
    dropped_names = {*_DEAD_LETTER_HEADERS, ATTEMPT, DEATHS, SUSPECTED_AT, EXPIRES_AT}
    dropped_names.add(PREVIOUS_ATTEMPT)
    replayed = {
        name: value for name, value in headers.items() if name not in dropped_names
    }
    traced = headers.get(PREVIOUS_ATTEMPT, headers.get(_TRACEPARENT))
    if traced is not None:
        replayed[REPLAYED_ATTEMPT] = traced
    return replayed


def _keep_headers(message: Message) -> dict[str, t.Any]:
    headers = {k: v for k, v in message.headers.items() if k not in _ROUTING_HEADERS}
    origin = (EXCHANGE, message.exchange), (ROUTING_KEY, message.routing_key)
    for name, known in origin:
        if read_text(headers, name) is None:
            headers[name] = known
    return headers


def _make_error_headers(error: BaseException) -> dict[str, t.Any]:
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    described = f"{kind}: {stringify(error)}"
    headers = {ERROR: _fit_text(described, MAX_ERROR)}
    if error.__traceback__ is not None:
        # traceback copes with errors that raise in their own str().
        lines = "".join(traceback.format_exception(error))
        headers[TRACEBACK] = _fit_text(lines, MAX_TRACEBACK)
    if isinstance(error, InvalidMessage) and error.details is not None:
        headers[DETAILS] = _fit_text(_encode_details(error.details), MAX_DETAILS)
    return headers


def _encode_details(details: t.Any) -> str:
    try:
        return json.dumps(details, default=str)
    except (TypeError, ValueError, RecursionError):
        # A schema names the keys that it refuses, and msgpack has keys of any type.
        return stringify(details)


def _fit_text(text: str, length: int) -> str:
    """Shorten a text, and escape lone surrogates (undecodable bytes) in it."""
    return shorten(text.encode("utf-8", "backslashreplace").decode(), length)


#: Types of which any value can be encoded.
_ALWAYS_VALID = frozenset((bool, bytes, type(None)))

#: Digits of the largest number of 31 bits.
_MAX_DECIMAL_DIGITS = 10

#: Levels to which lists and mappings may nest; the clients of all brokers encode more.
_MAX_DEPTH = 50


def check_values(headers: Mapping[str, t.Any]) -> None:
    """Refuse headers that AMQP cannot encode, on every broker.

    An app that works with ``memory://`` therefore works on RabbitMQ as well.

    :raises PublishError: with the name of the header.
    """
    for name, value in headers.items():
        kind = type(value)
        if kind in _ALWAYS_VALID or (kind is str and value.isascii()):
            continue
        if problem := _find_problem(value, _MAX_DEPTH):
            raise PublishError(
                f"The header {quote(name)} cannot be sent: {problem}. Headers hold"
                " texts, whole numbers of 64 bits, floats, True, False, None, bytes,"
                " decimals, times (datetime), and lists and mappings of these."
            )


def _find_problem(value: t.Any, depth: int) -> str | None:
    """Return the reason why AMQP cannot encode a value; ``None`` if AMQP can."""
    if isinstance(value, str):
        return None if _is_utf8(value) else f"{quote(value)} is no UTF-8"
    if isinstance(value, (bool, bytes, type(None))):
        return None
    if isinstance(value, (list, tuple, dict)):
        return _find_problem_within(value, depth - 1)
    for kind, check in _CHECKS.items():
        if isinstance(value, kind):
            return None if check(value) else f"its '{kind.__name__}' is out of range"
    return f"it holds a '{type(value).__name__}'"


def _find_problem_within(value: t.Any, depth: int) -> str | None:
    if not depth:
        return f"it nests deeper than {_MAX_DEPTH}"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not _is_utf8(key, 255):
                return f"its key {quote(key)} must be a text of up to 255 bytes"
        value = value.values()
    problems = (_find_problem(item, depth) for item in value)
    return next((item for item in problems if item), None)


def _is_utf8(text: str, longest: float = math.inf) -> bool:
    """Return whether a text can be encoded as UTF-8; lone surrogates cannot."""
    try:
        return len(text.encode()) <= longest
    except UnicodeEncodeError:
        return False


def _is_short_decimal(value: decimal.Decimal) -> bool:
    """Return whether AMQP can encode a decimal: at most 32 bits, scale below 256."""
    if not value.is_finite():
        return False
    _, digits, exponent = value.as_tuple()
    if not -255 <= t.cast(int, exponent) <= 0 or len(digits) > _MAX_DECIMAL_DIGITS:
        return False
    # One of the bits is the sign.
    return int("".join(map(str, digits))) < 2**31


def _is_amqp_time(value: datetime.datetime) -> bool:
    """Return whether AMQP can encode a time: seconds since 1970, not negative."""
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
    datetime.datetime: _is_amqp_time,
}
