"""Dead letters as text: a row of a table, a page, or a line of JSON.

Other programs may have written any part of a dead letter, so every part is escaped
before it reaches the terminal.
"""

from __future__ import annotations

import base64
import json
import time
import typing as t
from collections.abc import Iterator

from ..broker import headers as own_headers
from ..broker.dead_letters import DeadLetter
from ..errors import InvalidMessage
from ..formats.json import to_plain
from ..formats.table import Decoders
from ..handling.payload import decode
from ..message import Message
from ..outcomes import Outcome
from ..settings import TEXT
from ..text import escape
from ..text import pluralize

HEADERS = ("Ref", "Queue", "Died", "Attempts", "Why")

#: Length at which a page truncates a header, a traceback or a body; JSON does not.
_MAX_SHOWN_CHARACTERS = 20_000
#: Largest decompressed body to show; bodies without compression have no limit.
_MAX_DECOMPRESSED_BYTES = 16 * 1024 * 1024


def format_row(letter: DeadLetter) -> list[str]:
    """Format a dead letter as the cells of a table."""
    return [
        escape(letter.ref),
        escape(letter.queue),
        _format_time(own_headers.read_time(letter.headers, own_headers.DIED_AT)),
        str(own_headers.read_int(letter.headers, own_headers.ATTEMPTS, 0) or "?"),
        escape(get_reason(letter), 70),
    ]


def get_reason(letter: DeadLetter) -> str:
    """Return why a message became a dead letter: its error, or the reason given."""
    error = own_headers.read_text(letter.headers, own_headers.ERROR)
    return (
        error or own_headers.read_text(letter.headers, own_headers.REASON) or "unknown"
    )


def format_page(letter: DeadLetter, decoders: Decoders) -> str:
    """Format a dead letter in several lines, with headers, traceback and body."""
    return "\n".join(_format_lines(letter, decoders))


def format_json(letter: DeadLetter, decoders: Decoders, *, whole: bool) -> str:
    """Format a dead letter as one line of JSON.

    :param whole: Whether to add headers, traceback, details and body.
    """
    fields = _make_json_safe(_collect_facts(letter))
    if whole:
        fields |= _make_json_safe(_collect_further_facts(letter))
        fields["headers"] = _make_json_safe(dict(letter.message.headers))
        fields |= _encode_body(letter.message, decoders)
    return json.dumps(fields, default=_to_plain_or_text)


def _collect_facts(letter: DeadLetter) -> dict[str, t.Any]:
    headers, message = letter.headers, letter.message
    return {
        "ref": letter.ref,
        "queue": letter.queue,
        "consumer": headers.get(own_headers.CONSUMER),
        "id": message.id,
        "routing_key": message.routing_key,
        "died_at": headers.get(own_headers.DIED_AT),
        "attempts": headers.get(own_headers.ATTEMPTS),
        "deaths": headers.get(own_headers.DEATHS),
        "reason": headers.get(own_headers.REASON),
        "error": headers.get(own_headers.ERROR),
    }


def _collect_further_facts(letter: DeadLetter) -> dict[str, t.Any]:
    headers, message = letter.headers, letter.message
    return {
        "exchange": message.exchange,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "timestamp": message.timestamp,
        "traceback": headers.get(own_headers.TRACEBACK),
        "details": headers.get(own_headers.DETAILS),
    }


def _format_lines(letter: DeadLetter, decoders: Decoders) -> Iterator[str]:
    headers, message = letter.headers, letter.message
    yield f"{escape(letter.ref)} in {escape(letter.queue)}.dead"
    facts = {
        "message": message.id,
        "consumer": headers.get(own_headers.CONSUMER),
        "published": _format_time(message.timestamp),
        "to": f"{message.exchange or '(default exchange)'}, {message.routing_key}",
        "died": _format_time(own_headers.read_time(headers, own_headers.DIED_AT)),
        "attempts": headers.get(own_headers.ATTEMPTS),
        "deaths": headers.get(own_headers.DEATHS) or None,
        "reason": headers.get(own_headers.REASON),
        "error": headers.get(own_headers.ERROR),
        "content type": message.content_type,
    }
    for name, value in facts.items():
        if value is not None:
            yield f"  {name:<13} {escape(value, 1_000)}"
    yield from _format_block("headers", _format_headers(message))
    yield from _format_block(
        "details", _indent_json(own_headers.read_text(headers, own_headers.DETAILS))
    )
    yield from _format_block(
        "traceback",
        (own_headers.read_text(headers, own_headers.TRACEBACK) or "").rstrip(),
    )
    yield from _format_block(
        f"body ({pluralize(len(message.raw), 'byte')})", _format_body(message, decoders)
    )


def _format_headers(message: Message) -> str:
    foreign = {
        name: value
        for name, value in sorted(message.headers.items(), key=lambda item: item[0])
        if not name.startswith(own_headers.PREFIX)
    }
    return "\n".join(
        f"{escape(name)}: {escape(value, 1_000)}" for name, value in foreign.items()
    )


def _format_block(title: str, text: str) -> Iterator[str]:
    if not text:
        return
    yield f"  {title}:"
    for line in _truncate(text).split("\n"):
        yield f"    {escape(line, _MAX_SHOWN_CHARACTERS)}"


def _truncate(text: str) -> str:
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    more = pluralize(len(text) - _MAX_SHOWN_CHARACTERS, "character")
    return f"{text[:_MAX_SHOWN_CHARACTERS]}\n… {more} more; --json has them all"


def _indent_json(text: str | None) -> str:
    """Indent JSON; return other texts unchanged."""
    try:
        return json.dumps(json.loads(text or ""), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text or ""


def _format_body(message: Message, decoders: Decoders) -> str:
    body = _try_decode(message, decoders)
    if isinstance(body, bytes):
        return body.decode("utf-8", "backslashreplace")
    if isinstance(body, str) and message.content_type == TEXT:
        return body
    try:
        return json.dumps(body, indent=2, ensure_ascii=False, default=_to_plain_or_text)
    except (TypeError, ValueError, RecursionError):
        return repr(body)


def _try_decode(message: Message, decoders: Decoders) -> t.Any:
    """Return a dead letter's decoded body; if it cannot be decoded, its bytes."""
    try:
        return decode(message, decoders, max(len(message.raw), _MAX_DECOMPRESSED_BYTES))
    except (InvalidMessage, Outcome):
        return message.raw


def _to_plain_or_text(value: t.Any) -> t.Any:
    try:
        return to_plain(value)
    except TypeError:
        return str(value)


def _encode_body(message: Message, decoders: Decoders) -> dict[str, t.Any]:
    """Return a dead letter's body for JSON: decoded, as text, or as base 64."""
    body = _try_decode(message, decoders)
    if _is_json_safe(body, to_plain):
        return {"body": body}
    try:
        return {"body_text": message.raw.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(message.raw).decode()}


def _make_json_safe(values: dict[str, t.Any]) -> dict[str, t.Any]:
    """Replace values that JSON cannot hold by their texts."""
    return {
        name: value
        if _is_json_safe(value, _to_plain_or_text)
        else escape(value, _MAX_SHOWN_CHARACTERS)
        for name, value in values.items()
    }


def _is_json_safe(value: t.Any, default: t.Callable[[t.Any], t.Any]) -> bool:
    """Return whether JSON can hold a value: no NaN, no cycle, not too deep.

    The value is tested inside lists, since the caller puts it into other objects.
    """
    try:
        json.dumps([[[value]]], default=default, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _format_time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "unknown"
