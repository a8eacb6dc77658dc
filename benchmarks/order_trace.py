"""The trace of an order, as a picture: ``python -m benchmarks.order_trace PICTURE``.

A request publishes the order; three consumers handle messages about it; one attempt is
retried, and one message becomes a dead letter. The picture is drawn from the spans that
OpenTelemetry exports. ``docs/how-to/tracing.rst`` shows it.
"""

from __future__ import annotations

import pathlib
import sys
import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence
from xml.sax.saxutils import escape

Spans = Sequence[t.Any]

# -- the order ------------------------------------------------------------------------


def create_app() -> t.Any:
    """Create a shop: ``POST /orders`` publishes, and three consumers follow."""
    from flask import Flask

    from flask_qconsume import QConsume
    from flask_qconsume import Reject
    from flask_qconsume import current_message

    app = Flask("shop")
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    app.config["QCONSUME_RETRY"] = {"min_delay": 0.03, "max_delay": 0.05}
    qconsume = QConsume(app)

    @app.post("/orders")
    def create() -> tuple[str, int]:
        qconsume.publish("order.created", {"id": 1})
        return "queued", 202

    @qconsume.consumer("billing", routing_key="order.created")
    def bill(order: t.Any) -> None:
        time.sleep(0.02)
        if current_message.attempt == 1:
            raise TimeoutError("the bank did not answer")
        qconsume.publish("order.paid", order)

    @qconsume.consumer("stock", routing_key="order.created")
    def reserve(order: t.Any) -> None:
        time.sleep(0.03)

    @qconsume.consumer("mail", routing_key="order.paid")
    def thank(order: t.Any) -> t.Any:
        time.sleep(0.01)
        return Reject("the customer has no address")

    return app


def place_order(app: t.Any) -> None:
    """Post one order to the app, and let a worker handle all that follows."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    from flask_qconsume.running.worker import Worker

    instrumentor = FlaskInstrumentor()
    instrumentor.instrument_app(app)
    worker = Worker(app)
    worker.start()
    try:
        assert app.test_client().post("/orders").status_code == 202
        _wait_for_dead_letter(app)
    finally:
        worker.stop()
        instrumentor.uninstrument_app(app)


def _wait_for_dead_letter(app: t.Any) -> None:
    consumers = app.extensions["qconsume"]
    letters = consumers.broker.dead_letters(consumers.topology.queue("mail"))
    deadline = time.monotonic() + 10
    while not letters.count() and time.monotonic() < deadline:
        time.sleep(0.01)


# -- the picture ----------------------------------------------------------------------

_WIDTH, _MARGIN, _ROW, _INDENT = 380, 8, 30, 10

_COLORS = {"SERVER": "#54607a", "PRODUCER": "#2f6f4f", "CONSUMER": "#2460a7"}
_OTHER, _FAILED = "#5d6972", "#b5483a"


class _Row(t.NamedTuple):
    span: t.Any
    depth: int
    number: int


def draw(spans: Spans) -> str:
    """Draw a trace as SVG: a row for each span, below the row of its parent."""
    rows = [_Row(span, depth, n) for n, (span, depth) in enumerate(_order(spans))]
    first = min(span.start_time for span in spans)
    length = max(span.end_time for span in spans) - first
    scale = (_WIDTH - 2 * _MARGIN) / length
    height = len(rows) * _ROW + 2 * _MARGIN + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        *(line for row in rows for line in _draw_row(row, first, scale)),
        *_draw_links(rows, first, scale),
        f'<text x="{_WIDTH - _MARGIN}" y="{height - _MARGIN}" text-anchor="end"'
        f' fill="#54607a">{length / 1e6:.0f} ms in all</text>',
        "</svg>\n",
    ]
    return "\n".join(lines)


def _order(spans: Spans) -> Iterator[tuple[t.Any, int]]:
    """Yield each span and its depth in the tree, parents before their children."""
    children: dict[int | None, list[t.Any]] = {}
    for span in sorted(spans, key=lambda each: each.start_time):
        parent = span.parent and span.parent.span_id
        children.setdefault(parent, []).append(span)

    def walk(parent: int | None, depth: int) -> Iterator[tuple[t.Any, int]]:
        for span in children.get(parent, []):
            yield span, depth
            yield from walk(span.get_span_context().span_id, depth + 1)

    return walk(None, 0)


def _draw_row(row: _Row, first: int, scale: float) -> Iterator[str]:
    span, top = row.span, _find_top(row)
    start = _MARGIN + (span.start_time - first) * scale
    width = max(2.0, (span.end_time - span.start_time) * scale)
    fill = _COLORS.get(span.kind.name, _OTHER)
    if span.status.status_code.name == "ERROR":
        fill = _FAILED
    yield (
        f'<text x="{_MARGIN + row.depth * _INDENT}" y="{top + 11}"'
        f' fill="{fill}">{escape(_describe(span))}</text>'
    )
    yield (
        f'<rect x="{start:.1f}" y="{top + 16}" width="{width:.1f}" height="7"'
        f' fill="{fill}"/>'
    )


def _describe(span: t.Any) -> str:
    attributes = span.attributes or {}
    text = str(span.name)
    if "qconsume.attempt" in attributes:
        text += f", attempt {attributes['qconsume.attempt']}"
    if "error.type" in attributes:
        text += f": {attributes['error.type'].rpartition('.')[2]}"
    return text


def _draw_links(rows: list[_Row], first: int, scale: float) -> Iterator[str]:
    """Draw a dashed line from each retry to the attempt before it."""
    by_id = {row.span.get_span_context().span_id: row for row in rows}
    for row in rows:
        for link in row.span.links:
            if "qconsume.link" in (link.attributes or {}):
                before = by_id[link.context.span_id]
                x1 = _MARGIN + (before.span.end_time - first) * scale
                x2 = _MARGIN + (row.span.start_time - first) * scale
                y1, y2 = _find_top(before) + 19, _find_top(row) + 19
                yield (
                    f'<path d="M{x1:.1f},{y1} H{x2:.1f} V{y2}" fill="none"'
                    f' stroke="{_FAILED}" stroke-dasharray="3 3"/>'
                )


def _find_top(row: _Row) -> int:
    return _MARGIN + row.number * _ROW


def main(picture: str) -> None:
    from gevent import monkey

    monkey.patch_all()
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    place_order(create_app())
    pathlib.Path(picture).write_text(draw(exporter.get_finished_spans()))


if __name__ == "__main__":
    main(*sys.argv[1:])
