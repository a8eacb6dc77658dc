"""The trace of one order: HTTP, three consumers, a retry and a dead letter."""

from __future__ import annotations

import re

from benchmarks.order_trace import create_app
from benchmarks.order_trace import draw
from benchmarks.order_trace import place_order

from ...pages import DOCS
from .recorded import Spans
from .recorded import linked_ids
from .recorded import own_id
from .recorded import parent_id
from .recorded import trace_id

TREE = {
    "publish qconsume:order.created": "POST /orders",
    "process billing": "publish qconsume:order.created",
    "process stock": "publish qconsume:order.created",
    "publish qconsume:order.paid": "process billing",
    "process mail": "publish qconsume:order.paid",
    "ack billing": "process billing",
    "ack stock": "process stock",
    "dead-letter mail": "process mail",
}


def test_one_trace_leads_from_the_request_to_the_dead_letter(spans: Spans) -> None:
    place_order(create_app())
    by_id = {own_id(span): span.name for span in spans.all}
    tree = {
        span.name: by_id.get(parent_id(span) or 0)
        for span in spans.all
        if span.parent is not None
    }
    assert tree == TREE
    assert len({trace_id(span) for span in spans.all}) == 1
    first, second = spans.named("process billing")
    assert own_id(first) in linked_ids(second)
    assert parent_id(first) == parent_id(second)
    assert parent_id(spans.one("publish qconsume:order.paid")) == own_id(second)
    assert spans.one("POST /orders").parent is None


def test_the_picture_in_the_docs_shows_this_trace(spans: Spans) -> None:
    place_order(create_app())
    shown = (DOCS / "_static" / "trace-order.svg").read_text("utf-8")
    assert list_labels(draw(spans.all)) == list_labels(shown)
    assert "stroke-dasharray" in shown


def list_labels(picture: str) -> set[str]:
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    return {label for label in labels if not label.endswith("ms in all")}
