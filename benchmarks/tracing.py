"""What tracing costs: ``python -m benchmarks.tracing``.

Drains the memory broker with an empty handler, by turns without tracing, with tracing,
and with a handler that makes the bare calls of OpenTelemetry's SDK for the same spans.
Prints microseconds of processor time per message, the median of the rounds, and how
much tracing adds, as a ratio to what the bare calls add in the same round.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import typing as t
from collections.abc import Callable

from .job import BODY

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"

Handler = Callable[[t.Any], None]


def main() -> None:
    from gevent import monkey

    monkey.patch_all()
    from flask_qconsume.running.gc_tuning import collect_less_often

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--messages", type=int, default=3_000)
    options = parser.parse_args()
    _set_up_sdk()
    collect_less_often()  # As "flask qconsume run" does.
    for name, flag in {"sampled": "01", "unsampled": "00"}.items():
        rounds = [_play(options.messages, flag) for _ in range(options.rounds)]
        _print(f"handling, {name}", rounds)
        rounds = [
            _play_publishes(options.messages, flag) for _ in range(options.rounds)
        ]
        _print(f"publishing, {name}", rounds)


def _print(name: str, rounds: list[tuple[float, float, float]]) -> None:
    off, traced, bare = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median((t - o) / (b - o) for o, t, b in rounds)
    print(
        f"{name}: off {off:.1f} µs, traced {traced:.1f} µs, bare calls {bare:.1f} µs;"
        f" tracing adds {ratio:.2f} times what the bare calls add"
    )


def _set_up_sdk() -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())  # Exports nothing.
    trace.set_tracer_provider(provider)


# -- handling and settling ------------------------------------------------------------


def _play(count: int, flag: str) -> tuple[float, float, float]:
    """Return µs per message without tracing, with it, and with the bare calls."""
    nothing: Handler = lambda body: None  # noqa: E731
    return (
        _drain(count, flag, False, nothing),
        _drain(count, flag, True, nothing),
        _drain(count, flag, False, _make_bare_handler()),
    )


def _drain(count: int, flag: str, tracing: bool, handler: Handler) -> float:
    from gevent.event import Event

    from flask_qconsume.running.worker import Worker

    over, left = Event(), count

    def handle(body: t.Any) -> None:
        nonlocal left
        handler(body)
        left -= 1
        if not left:
            over.set()

    app = _create_app(tracing, handle)
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-{flag}"}
    options = {"content_type": "application/json", "headers": headers}
    app.extensions["qconsume"].publish_many([("bench", BODY, options)] * count)
    worker = Worker(app)
    gc.collect()
    began = time.process_time()
    worker.start()
    over.wait()
    worker.stop()
    return (time.process_time() - began) / count * 1e6


def _create_app(tracing: bool, handle: Handler) -> t.Any:
    from flask import Flask

    from flask_qconsume import QConsume

    app = Flask("benchmark")
    app.testing = True  # What is published in memory waits for a worker.
    app.config.update(QCONSUME_BROKER_URL="memory://", QCONSUME_TRACING=tracing)
    qconsume = QConsume(app)
    qconsume.add_consumer("bench", handle, name="handle", concurrency=100)
    return app


def _make_bare_handler() -> Handler:
    """Make the calls that an app without our tracing would make for the same spans."""
    from opentelemetry import propagate
    from opentelemetry.context import Context
    from opentelemetry.context import attach
    from opentelemetry.context import detach
    from opentelemetry.trace import Link
    from opentelemetry.trace import NonRecordingSpan
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace import get_tracer
    from opentelemetry.trace import set_span_in_context

    from flask_qconsume import current_message

    tracer = get_tracer("bare")

    def handle(body: t.Any) -> None:
        message = current_message._get_current_object()  # type: ignore[attr-defined]
        context = propagate.extract(message.headers, Context())
        span = tracer.start_span(
            "process bench",
            context,
            SpanKind.CONSUMER,
            {
                "messaging.system": "memory",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": "bench",
                "messaging.message.id": message.id,
                "messaging.message.body.size": len(message.raw),
                "qconsume.consumer": "handle",
                "qconsume.attempt": message.attempt,
            },
            [Link(get_current_span(context).get_span_context())],
        )
        detach(attach(set_span_in_context(span, context)))
        span.set_attribute("qconsume.outcome", "ack")
        span.end()
        parent = NonRecordingSpan(span.get_span_context())
        settle = tracer.start_span(
            "ack bench",
            set_span_in_context(parent, Context()),
            SpanKind.CLIENT,
            {
                "messaging.system": "memory",
                "messaging.operation.name": "ack",
                "messaging.operation.type": "settle",
                "messaging.destination.name": "bench",
                "messaging.message.id": message.id,
                "qconsume.consumer": "handle",
            },
        )
        settle.end()

    return handle


# -- publishing -----------------------------------------------------------------------


def _play_publishes(count: int, flag: str) -> tuple[float, float, float]:
    return (
        _publish(count, flag, False, bare=False),
        _publish(count, flag, True, bare=False),
        _publish(count, flag, False, bare=True),
    )


def _publish(count: int, flag: str, tracing: bool, *, bare: bool) -> float:
    from opentelemetry import propagate
    from opentelemetry.context import Context
    from opentelemetry.context import attach
    from opentelemetry.context import detach

    app = _create_app(tracing, lambda body: None)
    publish = app.extensions["qconsume"].publish
    send = _make_bare_publish(publish) if bare else publish
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-{flag}"}
    token = attach(propagate.extract(headers, Context()))
    publish("bench", BODY, content_type="application/json")
    gc.collect()
    began = time.process_time()
    for _ in range(count):
        send("bench", BODY, content_type="application/json")
    taken = time.process_time() - began
    detach(token)
    return taken / count * 1e6


def _make_bare_publish(publish: Callable[..., str]) -> Callable[..., str]:
    from opentelemetry import propagate
    from opentelemetry.context import attach
    from opentelemetry.context import detach
    from opentelemetry.instrumentation.utils import suppress_instrumentation
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace import get_tracer
    from opentelemetry.trace import set_span_in_context

    tracer = get_tracer("bare")

    def send(routing_key: str, body: bytes, **options: t.Any) -> str:
        span = tracer.start_span(
            "publish qconsume:bench",
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "memory",
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": "qconsume:bench",
                "messaging.message.id": "6b1bf0b4-70a3-4b3c-8f4c-9c2f5a3d6c1e",
                "messaging.message.body.size": len(body),
            },
        )
        headers: dict[str, str] = {}
        context = set_span_in_context(span)
        propagate.inject(headers, context)
        token = attach(context)
        with suppress_instrumentation():
            found = publish(routing_key, body, headers=headers, **options)
        detach(token)
        span.end()
        return found

    return send


if __name__ == "__main__":
    main()
