"""Time limits: many of them, and one timer."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from flask_qconsume import HandlerTimeout
from flask_qconsume.running.time_limits import TimeLimits

from ..waiting import hang
from ..waiting import spend
from ..waiting import wait_for


@pytest.fixture
def limits() -> Iterator[TimeLimits]:
    limits = TimeLimits()
    yield limits
    limits.close()


def limited(limits: TimeLimits, seconds: float, work: t.Callable[[], t.Any]) -> t.Any:
    def run() -> t.Any:
        with limits(seconds):
            return work()

    return gevent.spawn(run)


def test_each_ends_in_its_time_whatever_their_order(limits: TimeLimits) -> None:
    ended: list[float] = []

    def wait(seconds: float) -> None:
        try:
            hang()
        except HandlerTimeout as error:
            assert error.seconds == seconds
            ended.append(seconds)

    allowed = (0.2, 0.05, 0.1, 0.05)
    running = [limited(limits, s, lambda s=s: wait(s)) for s in allowed]
    gevent.joinall(running)
    assert ended == [0.05, 0.05, 0.1, 0.2]
    assert all(isinstance(each.exception, HandlerTimeout) for each in running)


def test_a_handler_that_ends_in_time_gets_no_error(limits: TimeLimits) -> None:
    def briefly() -> str:
        spend(0.01)
        return "done"

    first = limited(limits, 0.1, briefly)
    second = limited(limits, 0.2, hang)
    second.join()
    assert first.value == "done"


def test_a_greenlet_that_is_cut_off_may_end_another_first(limits: TimeLimits) -> None:
    over = Event()

    def last_words() -> None:
        try:
            hang()
        finally:
            over.set()
            spend(0.1)

    first = limited(limits, 0.05, last_words)
    second = limited(limits, 0.1, lambda: over.wait())
    gevent.joinall([first, second])
    assert isinstance(first.exception, HandlerTimeout)
    assert second.value is True


def test_limits_may_be_nested(limits: TimeLimits) -> None:
    def outer() -> str:
        with pytest.raises(HandlerTimeout), limits(0.02):
            hang()
        return "the outer one goes on"

    assert limited(limits, 30, outer).get() == "the outer one goes on"


def test_after_a_pause_the_timer_fires_again(limits: TimeLimits) -> None:
    for _ in range(2):
        running = limited(limits, 0.02, hang)
        wait_for(running.ready)
        assert isinstance(running.exception, HandlerTimeout)
