"""Leases that no worker extends are found by the clock of this process."""

from __future__ import annotations

from flask_qconsume.brokers.redis.leases import StaleLeases


class ManualClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_that_stays_unchanged_for_its_length_is_stale() -> None:
    clock = ManualClock()
    leases: StaleLeases[tuple[str, int]] = StaleLeases(60, clock)
    assert leases.find_stale([("a", 1)]) == []
    clock.now = 59
    assert leases.find_stale([("a", 1), ("b", 1)]) == []
    clock.now = 60
    assert leases.find_stale([("a", 1), ("b", 1)]) == [("a", 1)]


def test_a_lease_that_was_extended_or_unseen_once_is_watched_from_the_start() -> None:
    clock = ManualClock()
    leases: StaleLeases[tuple[str, int]] = StaleLeases(60, clock)
    leases.find_stale([("renewed", 1), ("gone", 1)])
    clock.now = 30
    leases.find_stale([("renewed", 2)])
    clock.now = 70
    assert leases.find_stale([("renewed", 2), ("gone", 1)]) == []
    clock.now = 90
    assert leases.find_stale([("renewed", 2), ("gone", 1)]) == [("renewed", 2)]


def test_a_short_lease_is_stale_no_sooner_than_three_missed_extensions() -> None:
    clock = ManualClock()
    leases: StaleLeases[str] = StaleLeases(1, clock)
    leases.find_stale(["a"])
    clock.now = 29
    assert leases.find_stale(["a"]) == []
    clock.now = 30
    assert leases.find_stale(["a"]) == ["a"]
