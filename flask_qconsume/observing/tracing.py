"""Spans of OpenTelemetry for messages that are published, handled and settled.

A message's process span is a child of the span that created the message, so that one
trace leads from a request through all its messages, their retries and dead letters. A
retry also links the previous attempt. Knows the API of OpenTelemetry, not its SDK.
"""

from __future__ import annotations

import functools
import time
import typing as t
from collections.abc import Sequence
from contextvars import Token

from opentelemetry import context as api_context
from opentelemetry import propagate
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.context import attach
from opentelemetry.context import detach
from opentelemetry.context import get_value
from opentelemetry.context import set_value
from opentelemetry.trace import Link
from opentelemetry.trace import NonRecordingSpan
from opentelemetry.trace import Span
from opentelemetry.trace import SpanKind
from opentelemetry.trace import Tracer
from opentelemetry.trace import set_span_in_context

from ..handling.context import Handling
from ..handling.events import Ending
from ..handling.events import Events
from ..handling.events import Listener
from ..handling.result import Result
from ..message import Message
from ..message import Outgoing
from ..outcomes import Ack
from ..outcomes import Drop
from ..outcomes import Reject
from ..outcomes import find_kind
from ..registration.consumer import Consumer
from ..version import VERSION
from .span_attributes import LINK
from .span_attributes import MESSAGE_ID
from .span_attributes import OUTCOME
from .span_attributes import SCHEMA_URL
from .span_attributes import SpanDescriber
from .span_attributes import shorten_text
from .span_errors import name_class
from .span_errors import record_error
from .span_errors import set_error
from .trace_headers import has_context
from .trace_headers import keep_attempt
from .trace_headers import read_origin
from .trace_headers import write_context

#: The key of the context of a message's process span, in the message's attributes.
_SPAN = "_opentelemetry_span"

#: The keys that keep instrumentations of clients silent. The first one has no public
#: name, so a later version of the API may lack it.
_PLAIN_SUPPRESS_KEY = "suppress_instrumentation"
_SUPPRESS_KEY: str = getattr(
    api_context, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_SUPPRESS_KEY
)

_PREVIOUS_ATTEMPT = {LINK: "previous attempt"}


def find_tracer() -> Tracer | None:
    """Return a tracer of the global provider; ``None`` if no SDK is set up and on."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    tracer = provider.get_tracer("flask_qconsume", VERSION, SCHEMA_URL)
    # "OTEL_SDK_DISABLED" switches an SDK off that is set up.
    return None if isinstance(tracer, trace.NoOpTracer) else tracer


def suppress_instrumentations(context: Context | None = None) -> Context:
    """Return a context in which instrumentations of clients create no spans.

    A client's span for a publish would tell the same as ours.
    """
    # Older instrumentations look at the plain key.
    plain = set_value(_PLAIN_SUPPRESS_KEY, True, context)
    return set_value(_SUPPRESS_KEY, True, plain)


def suppress_clients() -> None:
    """Have instrumentations of clients create no spans here from now on."""
    attach(suppress_instrumentations())


class PublishTracer(Listener):
    """Creates the spans of publishing, and adds their context to the headers."""

    def __init__(self, tracer: Tracer, describer: SpanDescriber) -> None:
        self._tracer = tracer
        self._describer = describer
        self._fields = propagate.get_global_textmap().fields - {"baggage"}

    def publishing(self, messages: Sequence[Outgoing]) -> Ending | None:
        """Start a span, and make it current until the messages are confirmed."""
        if not messages or get_value(_SUPPRESS_KEY):
            return None
        if len(messages) == 1:
            span = self._start_one(messages[0])
        else:
            span = self._start_many(messages)
        token = attach(suppress_instrumentations(set_span_in_context(span)))
        return functools.partial(_end_publish, span, token)

    def _start_one(self, message: Outgoing) -> Span:
        """Start the producer span, or (for a given context) the client span."""
        given = has_context(message.headers, self._fields)
        kind = SpanKind.CLIENT if given else SpanKind.PRODUCER
        span = self._start(message, "publish", kind)
        if not given:
            write_context(message.headers, set_span_in_context(span))
        return span

    def _start_many(self, messages: Sequence[Outgoing]) -> Span:
        """Create a span for each message, and start one for sending them together."""
        links = [
            self._create(message)
            for message in messages
            if not has_context(message.headers, self._fields)
        ]
        name, attributes = self._describer.describe_publishes(messages)
        return self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, links=links
        )

    def _create(self, message: Outgoing) -> Link:
        span = self._start(message, "create", SpanKind.PRODUCER)
        write_context(message.headers, set_span_in_context(span))
        span.end()
        return Link(span.get_span_context(), {MESSAGE_ID: shorten_text(message.id)})

    def _start(self, message: Outgoing, operation: str, kind: SpanKind) -> Span:
        name, attributes = self._describer.describe_publish(message, operation)
        return self._tracer.start_span(name, kind=kind, attributes=attributes)


def _end_publish(
    span: Span, token: Token[Context], errors: Sequence[Exception | None] | None
) -> None:
    detach(token)
    failed = [error for error in errors or () if error is not None]
    if errors is None:
        set_error(span, "interrupted", "A stop or a time limit came before sending.")
    elif failed:
        set_error(span, name_class(failed[0]), shorten_text(failed[0]))
    span.end()


class ProcessTracer(Listener):
    """Creates the spans of handling and of settling.

    The process span is current in the handler's greenlet; the message's baggage, too.
    """

    def __init__(
        self, events: Events, tracer: Tracer, describer: SpanDescriber
    ) -> None:
        self._events = events
        self._tracer = tracer
        self._describer = describer

    def handling(self, handling: Handling) -> Ending | None:
        """Start the span of handling a message, current until the handling ends."""
        message = handling.message
        origin = read_origin(message)
        name, attributes = self._describer.describe_process(handling.consumer, message)
        links = [] if origin.creation is None else [Link(origin.creation)]
        if origin.previous is not None:
            links.append(Link(origin.previous, _PREVIOUS_ATTEMPT))
        span = self._tracer.start_span(
            name, origin.context, SpanKind.CONSUMER, attributes, links
        )
        vars(message)[_SPAN] = span.get_span_context()
        token = attach(set_span_in_context(span, origin.context))
        return functools.partial(_end_process, message, span, token)

    def settling(
        self, consumer: Consumer, action: str, messages: Sequence[Message]
    ) -> Ending | None:
        """Create, at the end, a settle span for each message of a sampled trace.

        Spans of a whole batch that existed meanwhile would make Python's garbage
        collections slower.
        """
        began = time.time_ns()

        def end(errors: Sequence[BaseException | None]) -> None:
            for message, error in zip(messages, errors, strict=True):
                self._tell_settled(consumer, action, message, error, began)

        return end

    def worker_stopped(self, worker: t.Any, clean: bool) -> None:
        """Listen to nothing more: the next worker may be without an SDK."""
        self._events.remove(self)

    def _tell_settled(
        self,
        consumer: Consumer,
        action: str,
        message: Message,
        error: BaseException | None,
        began: int,
    ) -> None:
        parent = vars(message).get(_SPAN)
        if parent is None:  # It was not handled here, such as a suspect.
            parent = read_origin(message).creation
        if parent is None or not parent.trace_flags.sampled:
            return
        name, attributes = self._describer.describe_settle(consumer, action, message)
        span = self._tracer.start_span(
            name,
            set_span_in_context(NonRecordingSpan(parent), Context()),
            SpanKind.CLIENT,
            attributes,
            start_time=began,
        )
        if error is not None:
            set_error(span, name_class(error), shorten_text(error))
        span.end()


def _end_process(
    message: Message, span: Span, token: Token[Context], result: Result | None
) -> None:
    detach(token)
    if result is not None and not isinstance(result.outcome, Ack):
        keep_attempt(message, span.get_span_context())
        if span.is_recording():
            _set_failure(span, result)
    outcome = find_kind(result.outcome).__name__.lower() if result else "interrupted"
    span.set_attribute(OUTCOME, outcome)
    span.end()


def _set_failure(span: Span, result: Result) -> None:
    """Mark a span as failed if an error led to a retry or a dead letter."""
    if isinstance(result.outcome, Drop):
        return
    if result.error is not None:
        record_error(span, result.error)
    elif isinstance(result.outcome, Reject):
        set_error(span, "Reject")
