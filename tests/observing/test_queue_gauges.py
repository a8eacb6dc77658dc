"""Gauges of a queue: each number that the broker tells, and no other."""

from __future__ import annotations

import typing as t

from flask_qconsume.broker.base import QueueStatus
from flask_qconsume.broker.base import SuspectsStatus
from flask_qconsume.observing.queue_gauges import make_queue_gauges

UNKNOWN = QueueStatus(None, None, None, None, None)


def values(status: QueueStatus, dates_waiting: bool = True) -> dict[str, float]:
    options: dict[str, t.Any] = {"dates_waiting": dates_waiting, "read_at": 100.0}
    found = list(make_queue_gauges("bill", "billing", status, **options))
    assert {series.labels for series in found} == {("bill", "billing")}
    return {each.name.removeprefix("qconsume_queue_"): each.values[0] for each in found}


def test_all_numbers_are_shown() -> None:
    suspects = SuspectsStatus(4, 50.0)
    assert values(QueueStatus(1, 2, 3, suspects, 5, oldest=93.5, lag=7)) == {
        "ready": 1,
        "delayed": 2,
        "in_hand": 3,
        "suspects": 4,
        "dead_letters": 5,
        "oldest_seconds": 6.5,
        "lag": 7,
        "read_seconds": 100,
    }


def test_an_unknown_number_is_absent_and_not_zero() -> None:
    assert values(UNKNOWN) == {"read_seconds": 100}


def test_the_age_is_zero_if_nothing_waits_and_the_broker_knows_ages() -> None:
    empty = QueueStatus(0, None, None, None, None)
    assert values(empty)["oldest_seconds"] == 0
    assert "oldest_seconds" not in values(empty, dates_waiting=False)
    # Some wait, and the time of the oldest is not known.
    some = QueueStatus(2, None, None, None, None)
    assert "oldest_seconds" not in values(some)


def test_a_message_from_the_future_has_no_negative_age() -> None:
    assert values(QueueStatus(1, 0, 0, None, 0, oldest=105.0))["oldest_seconds"] == 0
