"""Our headers: senseless values count as absent, and copies keep the right ones."""

from __future__ import annotations

import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume import InvalidMessage
from flask_qconsume import Message
from flask_qconsume.broker import headers as own_headers

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3, 3),
        (1, 1),
        (0, 1),
        (-5, 1),
        (10**30, 1_000_000),
        (True, 1),
        (2.0, 1),
        ("3", 1),
        (None, 1),
        ([], 1),
        ({}, 1),
        (b"3", 1),
    ],
)
def test_a_number_that_is_nonsense_counts_as_absent(value: t.Any, found: int) -> None:
    assert own_headers.read_int({"x": value}, "x", 1) == found
    assert own_headers.read_int({}, "x", 1) == 1


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1.5, 1.5),
        (1, 1.0),
        (0, 0.0),
        (-1, None),
        (NAN, None),
        (INF, None),
        (10**400, None),
        (1e300, None),
        (True, None),
        ("1", None),
        (None, None),
        ([1], None),
    ],
)
def test_a_time_that_is_nonsense_counts_as_absent(
    value: t.Any, found: float | None
) -> None:
    assert own_headers.read_time({"x": value}, "x") == found


@pytest.mark.parametrize(("value", "found"), [("a", "a"), ("", ""), (5, None)])
def test_a_text_that_is_nonsense_counts_as_absent(
    value: t.Any, found: str | None
) -> None:
    assert own_headers.read_text({"x": value}, "x") == found
    assert own_headers.read_text({}, "x") is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(anything)
def test_no_value_at_all_makes_reading_fail(value: t.Any) -> None:
    assert 1 <= own_headers.read_int({"x": value}, "x", 1) <= 1_000_000
    assert (own_headers.read_time({"x": value}, "x") or 0.0) >= 0
    assert own_headers.read_text({"x": value}, "x") in (None, value)


def message(**fields: t.Any) -> Message:
    return Message(
        b"{}",
        "billing",
        **{"exchange": "shop", "routing_key": "order.created", **fields},
    )


def test_a_retry_remembers_its_attempt_and_where_it_came_from() -> None:
    found = own_headers.make_retry_headers(
        message(headers={"x-tenant": "acme", own_headers.DEATHS: 2}), 3
    )
    assert found == {
        "x-tenant": "acme",
        own_headers.ATTEMPT: 3,
        own_headers.EXCHANGE: "shop",
        own_headers.ROUTING_KEY: "order.created",
    }


def test_the_origin_survives_any_number_of_retries() -> None:
    first = own_headers.make_retry_headers(message(), 2)
    again = own_headers.make_retry_headers(
        message(headers=first, exchange="", routing_key="billing"), 3
    )
    assert again[own_headers.EXCHANGE] == "shop"
    assert again[own_headers.ROUTING_KEY] == "order.created"
    assert again[own_headers.ATTEMPT] == 3


@pytest.mark.parametrize("nonsense", [None, 5, b"x"])
def test_nonsense_for_an_origin_counts_as_absent(nonsense: t.Any) -> None:
    headers = {own_headers.EXCHANGE: nonsense, own_headers.ROUTING_KEY: nonsense}
    for found in copies(message(headers=headers)):
        assert found[own_headers.EXCHANGE] == "shop"
        assert found[own_headers.ROUTING_KEY] == "order.created"


def copies(given: Message) -> list[dict[str, t.Any]]:
    return [
        own_headers.make_retry_headers(given, 2),
        own_headers.make_suspect_headers(given, 1, now=5.0),
        own_headers.make_dead_letter_headers(given, "bill", "billing", "no", None, 1.0),
    ]


def test_no_copy_is_routed_to_other_queues_again() -> None:
    given = message(headers={"CC": ["a"], "BCC": ["b"], "cc": "kept"})
    for found in copies(given):
        assert "CC" not in found
        assert "BCC" not in found
        assert found["cc"] == "kept"


def test_making_copies_changes_no_message() -> None:
    headers = {"a": 1, own_headers.DEATHS: 1, "CC": "x"}
    copies(message(headers=headers))
    assert headers == {"a": 1, own_headers.DEATHS: 1, "CC": "x"}


def test_a_suspect_keeps_its_attempt_and_counts_its_deaths() -> None:
    found = own_headers.make_suspect_headers(message(attempt=4, deaths=1), 2, now=5.0)
    assert (found[own_headers.ATTEMPT], found[own_headers.DEATHS]) == (4, 2)


def raised(error: Exception, depth: int = 0) -> Exception:
    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1)
        raise error

    try:
        fail(depth)
    except Exception as caught:
        return caught
    raise AssertionError()


def test_a_dead_letter_tells_why() -> None:
    error = raised(ValueError("no funds"))
    found = own_headers.make_dead_letter_headers(
        message(attempt=6, deaths=1, headers={"a": 1}),
        "bill",
        "q",
        "6 of 6",
        error,
        9.5,
    )
    traceback = found.pop(own_headers.TRACEBACK)
    assert found == {
        "a": 1,
        own_headers.EXCHANGE: "shop",
        own_headers.ROUTING_KEY: "order.created",
        own_headers.REASON: "6 of 6",
        own_headers.CONSUMER: "bill",
        own_headers.QUEUE: "q",
        own_headers.ATTEMPTS: 6,
        own_headers.DEATHS: 1,
        own_headers.DIED_AT: 9.5,
        own_headers.ERROR: "builtins.ValueError: no funds",
    }
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("ValueError: no funds\n")


def test_a_dead_letter_without_an_error_has_none() -> None:
    found = own_headers.make_dead_letter_headers(
        message(), "bill", "q", "refused", None, 1.0
    )
    assert not {own_headers.ERROR, own_headers.TRACEBACK, own_headers.DETAILS} & {
        *found
    }
    unraised = own_headers.make_dead_letter_headers(
        message(), "bill", "q", "refused", ValueError(), 1.0
    )
    assert own_headers.TRACEBACK not in unraised


def test_what_is_long_is_cut_in_the_middle() -> None:
    error = raised(ValueError("x" * 100_000), depth=300)
    details = InvalidMessage("no", {"field": ["y" * 100_000]})
    found = own_headers.make_dead_letter_headers(
        message(), "bill", "q", "r" * 100_000, error, 1.0
    )
    found |= own_headers.make_dead_letter_headers(
        message(), "bill", "q", "r" * 100_000, raised(details), 1.0
    )
    assert len(found[own_headers.REASON]) == own_headers.MAX_ERROR
    assert len(found[own_headers.TRACEBACK]) <= own_headers.MAX_TRACEBACK
    assert len(found[own_headers.DETAILS]) == own_headers.MAX_DETAILS
    assert found[own_headers.REASON].startswith("rrr")
    assert " … " in found[own_headers.REASON]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error", [Mute(), ValueError("\udcff\ud800"), ValueError(b"\xff")]
)
def test_whatever_an_error_says_can_be_sent(error: Exception) -> None:
    found = own_headers.make_dead_letter_headers(
        message(), "b", "q", str(b"\xff") + "\udc80", raised(error), 1.0
    )
    for name in (own_headers.REASON, own_headers.ERROR, own_headers.TRACEBACK):
        found[name].encode("utf-8")


@pytest.mark.parametrize(
    ("details", "kept"),
    [
        ({"id": ["Missing data."]}, '{"id": ["Missing data."]}'),
        ({0: {"id": ["no"]}}, '{"0": {"id": ["no"]}}'),
        ({"at": {1, 2}.__class__}, '{"at": "<class \'set\'>"}'),
        ({b"key": ["Unknown field."]}, "{b'key': ['Unknown field.']}"),
        ({(1, 2): ["Unknown field."]}, "{(1, 2): ['Unknown field.']}"),
        ({"s": "\ud800"}, '{"s": "\\ud800"}'),
        ([], "[]"),
    ],
)
def test_the_schemas_errors_are_kept_whatever_their_keys(
    details: t.Any, kept: str
) -> None:
    error = raised(InvalidMessage("no", details))
    found = own_headers.make_dead_letter_headers(
        message(), "bill", "q", "no", error, 1.0
    )
    assert found[own_headers.DETAILS] == kept


def test_details_nested_too_deeply_are_no_reason_to_fail() -> None:
    details: dict[str, t.Any] = {}
    for _ in range(100_000):
        details = {"a": details}
    error = raised(InvalidMessage("no", details))
    assert own_headers.make_dead_letter_headers(message(), "b", "q", "no", error, 1.0)[
        own_headers.DETAILS
    ]
    while details:
        details = details.pop(
            "a"
        )  # Level by level, since freeing nested objects is recursive.


def test_a_replay_starts_anew_where_it_came_from() -> None:
    given = message(
        headers={
            "x-tenant": "acme",
            own_headers.KEY: "k",
            own_headers.PUBLISHED_AT: 1.0,
        }
    )
    error = raised(InvalidMessage("no", {"a": 1}))
    dead = own_headers.make_dead_letter_headers(
        given, "bill", "billing", "no", error, 1.0
    )
    # The expiration is gone, too: a replayed message is meant to be handled.
    assert own_headers.make_replay_headers(
        {**dead, own_headers.ATTEMPT: 6, own_headers.EXPIRES_AT: 1.0}
    ) == {
        "x-tenant": "acme",
        own_headers.KEY: "k",
        own_headers.PUBLISHED_AT: 1.0,
        own_headers.EXCHANGE: "shop",
        own_headers.ROUTING_KEY: "order.created",
    }


def test_details_are_json_that_can_be_read_again() -> None:
    details = {"items": {0: ["no"], 1: {"price": ["Not a number."]}}}
    found = own_headers.make_dead_letter_headers(
        message(), "b", "q", "no", raised(InvalidMessage("no", details)), 1
    )
    assert json.loads(found[own_headers.DETAILS])["items"]["1"] == {
        "price": ["Not a number."]
    }
