"""Leases that nobody renews are told from those that are, by a clock of our own."""

from __future__ import annotations

from flask_qconsume.brokers.redis.leases import Unmoved


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_stays_as_it_is_for_the_length_of_a_lease_is_over() -> None:
    time = Time()
    unmoved: Unmoved[tuple[str, int]] = Unmoved(60, time)
    assert unmoved.over([("a", 1)]) == []
    time.now = 59
    assert unmoved.over([("a", 1), ("b", 1)]) == []
    time.now = 60
    assert unmoved.over([("a", 1), ("b", 1)]) == [("a", 1)]


def test_what_is_renewed_or_gone_for_one_look_is_watched_anew() -> None:
    time = Time()
    unmoved: Unmoved[tuple[str, int]] = Unmoved(60, time)
    unmoved.over([("renewed", 1), ("gone", 1)])
    time.now = 30
    unmoved.over([("renewed", 2)])
    time.now = 70
    assert unmoved.over([("renewed", 2), ("gone", 1)]) == []
    time.now = 90
    assert unmoved.over([("renewed", 2), ("gone", 1)]) == [("renewed", 2)]


def test_a_short_lease_waits_for_those_who_renew_longer_ones_seldom() -> None:
    time = Time()
    unmoved: Unmoved[str] = Unmoved(1, time)
    unmoved.over(["a"])
    time.now = 29
    assert unmoved.over(["a"]) == []
    time.now = 30
    assert unmoved.over(["a"]) == ["a"]
