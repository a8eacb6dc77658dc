"""Leases that no worker extends are found by the clock of this process."""

from __future__ import annotations

from flask_qconsume.brokers.redis.leases import StaleLeases


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_that_stays_unchanged_for_its_length_is_stale() -> None:
    time = Time()
    unmoved: StaleLeases[tuple[str, int]] = StaleLeases(60, time)
    assert unmoved.find_stale([("a", 1)]) == []
    time.now = 59
    assert unmoved.find_stale([("a", 1), ("b", 1)]) == []
    time.now = 60
    assert unmoved.find_stale([("a", 1), ("b", 1)]) == [("a", 1)]


def test_a_lease_that_was_extended_or_unseen_once_is_watched_from_the_start() -> None:
    time = Time()
    unmoved: StaleLeases[tuple[str, int]] = StaleLeases(60, time)
    unmoved.find_stale([("renewed", 1), ("gone", 1)])
    time.now = 30
    unmoved.find_stale([("renewed", 2)])
    time.now = 70
    assert unmoved.find_stale([("renewed", 2), ("gone", 1)]) == []
    time.now = 90
    assert unmoved.find_stale([("renewed", 2), ("gone", 1)]) == [("renewed", 2)]


def test_a_short_lease_is_stale_no_sooner_than_three_missed_extensions() -> None:
    time = Time()
    unmoved: StaleLeases[str] = StaleLeases(1, time)
    unmoved.find_stale(["a"])
    time.now = 29
    assert unmoved.find_stale(["a"]) == []
    time.now = 30
    assert unmoved.find_stale(["a"]) == ["a"]
