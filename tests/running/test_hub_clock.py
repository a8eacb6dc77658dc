"""The clock that sees a blocked event loop."""

from __future__ import annotations

import time
import typing as t

import pytest

from flask_qconsume.native_threads import Latch
from flask_qconsume.native_threads import NativeThread
from flask_qconsume.running import hub_clock
from flask_qconsume.running.hub_clock import HubClock

from ..waiting import spend
from ..waiting import wait_for


@pytest.fixture
def clock() -> t.Iterator[HubClock]:
    made = HubClock()
    made.start()
    yield made
    made.close()


def block(seconds: float) -> None:
    """Let no other greenlet run for some seconds, without computing."""
    Latch().wait(seconds)


def test_an_event_loop_that_runs_is_not_blocked(
    clock: HubClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_clock, "MIN_BLOCKED_SECONDS", 20.0)
    spend(0.6)
    assert 0 <= clock.latency < 20
    assert clock.measure_blocked() == 0


def test_blocked_seconds_are_told_once_while_the_block_lasts_and_after_it(
    clock: HubClock,
) -> None:
    told: list[float] = []
    over = Latch()

    def watch() -> None:
        while not over.wait(0.05):
            told.append(clock.measure_blocked())

    thread = NativeThread(watch, "watching").start()
    began = time.monotonic()
    block(1.6)
    during = sum(told)
    # The timer was due after half a second, at the latest.
    assert 0.9 <= during <= time.monotonic() - began
    wait_for(lambda: clock.latency < 0.5)
    over.open()
    assert thread.join(10)
    assert during <= sum(told) <= time.monotonic() - began


def test_a_process_that_is_halted_as_a_whole_is_not_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its native threads were halted, too, and it used no processor time."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 1.0)
    clock = HubClock()
    now[0] += 61.0
    assert clock.measure_blocked() == 2.0
    monkeypatch.setattr(time, "process_time", lambda: 61.0)
    now[0] += 60.0
    assert clock.measure_blocked() == 60.0
    clock.close()
