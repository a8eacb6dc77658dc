"""Trace contexts in the headers of messages, read and written. No I/O.

The globally configured propagator decides the headers' format; by default these are
W3C's ``traceparent``, ``tracestate`` and ``baggage``. Any program can set headers, so
wrong values count as absent, and nothing here raises because of them.
"""

from __future__ import annotations

import typing as t
from collections.abc import Container
from collections.abc import Mapping

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanContext
from opentelemetry.trace import get_current_span
from opentelemetry.trace import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..broker.headers import PREVIOUS_ATTEMPT
from ..broker.headers import REPLAYED_ATTEMPT
from ..message import Message

#: Characters of the longest header that is read; W3C allows as many for baggage.
_MAX_LENGTH = 8_192

_TRACEPARENT = "traceparent"
_w3c = TraceContextTextMapPropagator()


class TracedOrigin(t.NamedTuple):
    """Where a message comes from, as its headers tell."""

    #: The context for handling the message: its parent span, if any, and its baggage.
    context: Context
    #: The span that created the message, if it is known.
    creation: SpanContext | None
    #: The span of the previous attempt; of the last one before a replay.
    previous: SpanContext | None


def read_origin(message: Message) -> TracedOrigin:
    """Read the context of a message's creation, and of its previous attempt.

    A replayed message starts a new trace: the span that created it is not its parent.
    From its second attempt on, its parent is the previous attempt.
    """
    headers = message.headers
    context = _extract(headers)
    creation = _find_span(context)
    previous = _read_span(headers, PREVIOUS_ATTEMPT)
    if REPLAYED_ATTEMPT in headers:
        if previous is None:
            context = _without_span(context)
            previous = _read_span(headers, REPLAYED_ATTEMPT)
        else:
            context = _extract_into(context, headers[PREVIOUS_ATTEMPT])
    return TracedOrigin(context, creation, previous)


def write_context(headers: Mapping[str, t.Any], context: Context) -> None:
    """Add a context to the headers of a message that is about to be published.

    Headers that the publisher has set are kept.
    """
    carrier: dict[str, t.Any] = {}
    propagate.inject(carrier, context)
    for name, value in carrier.items():
        if isinstance(value, str) and value.isascii():
            t.cast("dict[str, t.Any]", headers).setdefault(name, value)


def has_context(headers: Mapping[str, t.Any], fields: Container[str]) -> bool:
    """Return whether a publisher has set a context of its own in the headers."""
    return any(name.lower() in fields for name in headers)


def keep_attempt(message: Message, span: SpanContext) -> None:
    """Note the span of an attempt in the message's headers, for its next attempt."""
    message.headers = {**message.headers, PREVIOUS_ATTEMPT: _format_span(span)}


class _HeaderGetter(Getter[Mapping[str, t.Any]]):
    """Reads headers of any type for a propagator."""

    def get(self, carrier: Mapping[str, t.Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        if value is None:
            return None
        text = value if type(value) is str else _to_text(value)
        return [text] if text is not None and _is_legal(text) else None

    def keys(self, carrier: Mapping[str, t.Any]) -> list[str]:
        return list(carrier)


_getter = _HeaderGetter()


def _extract(headers: Mapping[str, t.Any]) -> Context:
    if not "".join(headers).islower():  # Other programs may write "Traceparent".
        headers = {name.lower(): value for name, value in headers.items()}
    return propagate.extract(headers, Context(), _getter)


def _to_text(value: t.Any) -> str | None:
    """Convert a header of another program to a text; join a list's texts by commas."""
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    if isinstance(value, (list, tuple)):
        # Lists in lists mean nothing, and could be nested beyond Python's limit.
        found = (each for each in value[:100] if isinstance(each, (bytes, str)))
        return ",".join(filter(None, map(_to_text, found)))
    return value if isinstance(value, str) else None


def _is_legal(text: str) -> bool:
    """Return whether a header has the length and the characters that W3C allows.

    Propagators write wrong baggage into the log as it is, so a line break in it could
    forge a log line.
    """
    return len(text) <= _MAX_LENGTH and text.replace("\t", " ").isprintable()


def _without_span(context: Context) -> Context:
    """Return the rest of a context, such as its baggage."""
    span = get_current_span(context)
    return Context({key: each for key, each in context.items() if each is not span})


def _extract_into(context: Context, traceparent: t.Any) -> Context:
    span = get_current_span(_w3c.extract({_TRACEPARENT: traceparent}, Context()))
    return set_span_in_context(span, context)


def _find_span(context: Context) -> SpanContext | None:
    span = get_current_span(context).get_span_context()
    return span if span.is_valid else None


def _read_span(headers: Mapping[str, t.Any], name: str) -> SpanContext | None:
    value = headers.get(name)
    if not isinstance(value, str):
        return None
    return _find_span(_w3c.extract({_TRACEPARENT: value}, Context()))


def _format_span(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
