"""Leases that nobody renews are told from those that are, by a clock of our own."""

from __future__ import annotations

from flask_qconsume.brokers.redis.leases import StaleLeases


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_stays_as_it_is_for_the_length_of_a_lease_is_over() -> None:
    time = Time()
    unmoved: StaleLeases[tuple[str, int]] = StaleLeases(60, time)
    assert unmoved.find_stale([("a", 1)]) == []
    time.now = 59
    assert unmoved.find_stale([("a", 1), ("b", 1)]) == []
    time.now = 60
    assert unmoved.find_stale([("a", 1), ("b", 1)]) == [("a", 1)]


def test_what_is_renewed_or_gone_for_one_look_is_watched_anew() -> None:
    time = Time()
    unmoved: StaleLeases[tuple[str, int]] = StaleLeases(60, time)
    unmoved.find_stale([("renewed", 1), ("gone", 1)])
    time.now = 30
    unmoved.find_stale([("renewed", 2)])
    time.now = 70
    assert unmoved.find_stale([("renewed", 2), ("gone", 1)]) == []
    time.now = 90
    assert unmoved.find_stale([("renewed", 2), ("gone", 1)]) == [("renewed", 2)]


def test_a_short_lease_waits_for_those_who_renew_longer_ones_seldom() -> None:
    time = Time()
    unmoved: StaleLeases[str] = StaleLeases(1, time)
    unmoved.find_stale(["a"])
    time.now = 29
    assert unmoved.find_stale(["a"]) == []
    time.now = 30
    assert unmoved.find_stale(["a"]) == ["a"]
