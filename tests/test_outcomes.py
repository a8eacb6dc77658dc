"""Outcomes: values that can be raised."""

from __future__ import annotations

import copy
import pickle
import traceback
import typing as t
from datetime import timedelta

import pytest

from flask_qconsume import Ack
from flask_qconsume import Drop
from flask_qconsume import Outcome
from flask_qconsume import Reject
from flask_qconsume import Retry

EACH = [Ack(), Retry(), Retry(2.5), Reject("no card"), Drop("a duplicate")]
each = pytest.mark.parametrize("outcome", EACH, ids=repr)


def test_the_base_cannot_be_used_itself() -> None:
    with pytest.raises(TypeError, match="Use 'Ack', 'Retry', 'Reject' or 'Drop'"):
        Outcome()


@each
def test_an_outcome_equals_another_of_the_same_values_only(outcome: Outcome) -> None:
    assert [other for other in EACH if other == outcome] == [outcome]
    assert copy.copy(outcome) == outcome
    assert hash(copy.copy(outcome)) == hash(outcome)
    assert outcome != str(outcome)


@each
def test_an_outcome_can_be_raised_again_and_again(outcome: Outcome) -> None:
    for _ in range(2):
        with pytest.raises(type(outcome)) as caught:
            raise outcome
        assert caught.value is outcome
    assert traceback.format_exception(outcome)


@each
def test_an_outcome_survives_pickling(outcome: Outcome) -> None:
    assert pickle.loads(pickle.dumps(outcome)) == outcome


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Ack(), "Ack()"),
        (Retry(), "Retry(delay=None)"),
        (Retry(3), "Retry(delay=3)"),
        (Reject("no"), "Reject(reason='no')"),
        (Drop("old"), "Drop(reason='old')"),
    ],
)
def test_its_text_is_its_call(outcome: Outcome, said: str) -> None:
    assert (repr(outcome), str(outcome)) == (said, said)


@pytest.mark.parametrize(
    "delay", [-0.1, float("inf"), float("nan"), -float("inf"), 1e308, "5m", True, []]
)
def test_a_delay_that_makes_no_sense_is_refused(delay: t.Any) -> None:
    with pytest.raises(ValueError, match="'delay' must be seconds from 0 up"):
        Retry(delay)


def test_a_refused_delay_is_shown_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"a timedelta, not '5\\n'\.$"):
        Retry(t.cast(t.Any, "5\n"))


def test_a_retry_at_once_is_fine() -> None:
    assert Retry(0).delay == 0


@pytest.mark.parametrize("cls", [Reject, Drop])
def test_a_reason_becomes_a_text(cls: t.Any) -> None:
    assert cls(ValueError("no card")).reason == "no card"


def test_a_delay_may_be_a_timedelta() -> None:
    assert Retry(timedelta(minutes=2)) == Retry(120)
    assert Retry(timedelta(minutes=2)).delay == 120.0
