"""`wait_for` returns at once when it may, and says what was missing when it may not."""

from __future__ import annotations

import gevent
import pytest

from .waiting import wait_for


def test_it_returns_the_first_true_value() -> None:
    values = iter([0, "", "found"])
    assert wait_for(lambda: next(values)) == "found"


def test_it_lets_other_greenlets_run() -> None:
    done: list[str] = []
    greenlet = gevent.spawn(done.append, "ran")
    assert wait_for(lambda: done) == ["ran"]
    greenlet.join()


def test_it_names_what_was_waited_for_and_how_far_it_came() -> None:
    with pytest.raises(AssertionError, match=r"0\.05 s: 3 messages \(last value: 0\)"):
        wait_for(lambda: 0, 0.05, message="3 messages")


def test_its_message_may_be_made_at_the_deadline() -> None:
    with pytest.raises(AssertionError, match="two of three"):
        wait_for(lambda: None, 0.05, message=lambda: "two of three")


def test_an_error_in_the_predicate_is_not_waited_out() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: 1 / 0)
