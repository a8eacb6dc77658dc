"""Our headers, read from messages and written for the copies we make. No I/O.

Whatever stands in a header came from outside: nonsense in one of ours counts as absent.
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
#: Where it was published to at first: a retry comes back by the default exchange.
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
#: Of a dead letter whose queue was full: it is to go there, and not to a handler.
PARKED = PREFIX + "parked"

#: Names of headers that a copy could not carry as they were.
CHANGED = PREFIX + "changed-headers"

_OF_DEATH = (REASON, ERROR, TRACEBACK, DETAILS, CONSUMER, QUEUE, ATTEMPTS, DIED_AT)

#: Routed on by RabbitMQ when a message is published: in a copy they would send it to
#: others a second time. https://www.rabbitmq.com/docs/sender-selected
_ROUTING = ("CC", "BCC")

#: All headers must fit one AMQP frame beside the rest (frame_max is 128 KiB by default,
#: and can be as small as 4 KiB); a traceback is the only long one of ours.
MAX_TRACEBACK = 16_000
MAX_ERROR = 1_000
MAX_DETAILS = 8_000

#: Values and keys in one header, or in an envelope, that is written as JSON.
MAX_ITEMS = 100_000

#: The end of the year 9999, which is where AMQP's clients end, too.
_LAST_TIME = 253_402_300_799


def read_int(headers: Mapping[str, t.Any], name: str, default: int) -> int:
    """A whole number of ours, from ``default`` up to a million."""
    value = headers.get(name)
    if type(value) is not int:  # A bool would be one, too.
        return default
    return min(max(value, default), 1_000_000)


def read_time(headers: Mapping[str, t.Any], name: str) -> float | None:
    """A time of ours in seconds since 1970."""
    value = headers.get(name)
    if type(value) is not float and type(value) is not int:
        return None
    # A copy takes it along as its AMQP timestamp, which must not refuse it.
    return float(value) if 0 <= value <= _LAST_TIME else None


def read_text(headers: Mapping[str, t.Any], name: str) -> str | None:
    """A text of ours."""
    value = headers.get(name)
    return value if isinstance(value, str) else None


def select_own(headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Those that we wrote."""
    return {name: headers[name] for name in headers if name.startswith(PREFIX)}


def find_oldest_suspect(messages: Iterable[Message]) -> float | None:
    """When the first of some suspects became one, as far as they say."""
    since = (read_time(message.headers, SUSPECTED_AT) for message in messages)
    return min((each for each in since if each is not None), default=None)


def make_retry_headers(message: Message, attempt: int) -> dict[str, t.Any]:
    """The headers of a copy that comes back as attempt number ``attempt``.

    Whoever fails by an error has not killed its process: its deaths are forgotten.
    """
    headers = {**_kept(message), ATTEMPT: attempt}
    headers.pop(DEATHS, None)
    headers.pop(SUSPECTED_AT, None)
    return headers


def make_suspect_headers(message: Message, deaths: int, now: float) -> dict[str, t.Any]:
    """The headers of a copy that goes to the lane of suspects, or back into it."""
    since = read_time(message.headers, SUSPECTED_AT) or now
    return {
        **_kept(message),
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
    """The headers of a dead letter.

    A consumer that reads dead letters begins with attempt 1, and at any time.
    """
    headers = {
        **_kept(message),
        REASON: _fit(reason, MAX_ERROR),
        CONSUMER: consumer,
        QUEUE: queue,
        ATTEMPTS: message.attempt,
        DEATHS: message.deaths,
        DIED_AT: now,
    }
    for name in (ATTEMPT, EXPIRES_AT):
        headers.pop(name, None)
    if error is not None:
        headers |= _of_error(error)
    return headers


def keep_simple_values(headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Those that anybody can write; the others are named in one of ours."""
    kept = {name: value for name, value in headers.items() if is_simple(value)}
    lost = ", ".join(name for name in headers if name not in kept)
    return {**kept, CHANGED: _fit(lost, MAX_ERROR)}


def is_simple(value: t.Any) -> bool:
    """Whether a value holds no others, and no surprises."""
    return isinstance(value, (str, int, float, type(None)))


def make_replay_headers(headers: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The headers of a dead letter that goes back to its queue as if it were new.

    It has no expiry any more: whoever replays a message wants it handled.
    """
    gone = {*_OF_DEATH, ATTEMPT, DEATHS, SUSPECTED_AT, EXPIRES_AT}
    return {name: value for name, value in headers.items() if name not in gone}


def _kept(message: Message) -> dict[str, t.Any]:
    headers = {k: v for k, v in message.headers.items() if k not in _ROUTING}
    origin = (EXCHANGE, message.exchange), (ROUTING_KEY, message.routing_key)
    for name, known in origin:
        if read_text(headers, name) is None:
            headers[name] = known
    return headers


def _of_error(error: BaseException) -> dict[str, t.Any]:
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    described = f"{kind}: {stringify(error)}"
    headers = {ERROR: _fit(described, MAX_ERROR)}
    if error.__traceback__ is not None:
        # traceback copes with errors whose own str() raises.
        lines = "".join(traceback.format_exception(error))
        headers[TRACEBACK] = _fit(lines, MAX_TRACEBACK)
    if isinstance(error, InvalidMessage) and error.details is not None:
        headers[DETAILS] = _fit(_details(error.details), MAX_DETAILS)
    return headers


def _details(details: t.Any) -> str:
    try:
        return json.dumps(details, default=str)
    except (TypeError, ValueError, RecursionError):
        # msgpack's mappings have keys of any type, and a schema names those it refuses.
        return stringify(details)


def _fit(text: str, length: int) -> str:
    """Short enough, and sendable: lone surrogates (undecodable bytes) are escaped."""
    return shorten(text.encode("utf-8", "backslashreplace").decode(), length)


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
