"""Contexts in headers of other programs, whatever these have written."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from opentelemetry import baggage

from flask_qconsume import Message
from flask_qconsume.broker.headers import PREVIOUS_ATTEMPT
from flask_qconsume.broker.headers import REPLAYED_ATTEMPT
from flask_qconsume.observing.span_attributes import shorten_text
from flask_qconsume.observing.trace_headers import read_origin

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
OTHER = "00-" + "a" * 32 + "-" + "c" * 16 + "-01"

NAMES = st.sampled_from(
    ["traceparent", "Tracestate", "baggage", PREVIOUS_ATTEMPT, REPLAYED_ATTEMPT, ""]
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.sampled_from([PARENT, PARENT.encode(), "a=1,b=2;c", "%00=%ff", "a=b" * 200]),
    ),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=3,
)


def message(**headers: t.Any) -> Message:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Message(b"", "bill", headers=named)


@settings(deadline=None, max_examples=60)
@given(headers=st.dictionaries(NAMES | st.text(), VALUES))
def test_no_header_raises_an_error(headers: dict[str, t.Any]) -> None:
    origin = read_origin(Message(b"", "bill", headers=headers))
    assert origin.creation is None or origin.creation.is_valid


@pytest.mark.parametrize(
    "value", [PARENT, PARENT.encode(), [PARENT], (PARENT.encode(),)]
)
def test_a_context_may_have_any_type_of_text(value: t.Any) -> None:
    for name in ("traceparent", "TRACEPARENT"):
        origin = read_origin(message(**{name: value}))
        assert origin.creation is not None
        assert origin.creation.span_id == int("b" * 16, 16)
        assert origin.previous is None


def nest(depth: int) -> list[t.Any]:
    found: list[t.Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_a_header_of_nested_lists_is_ignored() -> None:
    origin = read_origin(message(traceparent=nest(3_000), baggage=[["a=b"], "c=d"]))
    assert origin.creation is None
    assert list(baggage.get_all(origin.context)) == ["c"]


def test_a_property_of_nested_lists_has_a_substitute() -> None:
    # Python 3.13 writes some thousand levels.
    assert shorten_text(nest(100_000)) == "(list, without a readable text)"


def test_a_header_that_is_too_long_is_ignored() -> None:
    assert read_origin(message(baggage="a=" + "b" * 9_000)).context == {}


def test_a_header_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    origin = read_origin(message(traceparent=PARENT, baggage="a=\nERROR root: paid"))
    assert origin.creation is not None
    assert list(baggage.get_all(origin.context)) == []
    assert caplog.text == ""


def test_wrong_contexts_of_attempts_are_ignored() -> None:
    wrong = message(x_qconsume_previous_attempt=5, x_qconsume_replayed_attempt=b"x")
    origin = read_origin(wrong)
    assert (origin.creation, origin.previous, origin.context) == (None, None, {})
