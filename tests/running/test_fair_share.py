"""Requests have priority over messages on a shared hub, and starve no consumer."""

from __future__ import annotations

import socket
import time
import typing as t
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event
from gevent.socket import wait_read

from flask_qconsume.running.fair_share import TURN_SECONDS
from flask_qconsume.running.fair_share import FairShare
from flask_qconsume.running.fair_share import Pace
from flask_qconsume.running.worker import Worker

from ..waiting import spend
from ..waiting import wait_for
from .conftest import AppWithWorkers

#: Longer than any test: a turn that comes by it is a failure.
NEVER = 3600.0


@pytest.fixture
def made() -> Iterator[list[FairShare]]:
    made: list[FairShare] = []
    yield made
    for turns in made:
        turns.close()


@pytest.fixture
def patient(made: list[FairShare]) -> FairShare:
    """Gives turns only when the hub is idle, however long that takes."""
    made.append(FairShare(Pace(NEVER, NEVER), share=1e-9))
    return made[-1]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


class Site:
    """A site with requests at any time: a socket that is always readable."""

    def __init__(self) -> None:
        self._sockets = socket.socketpair()
        self._sockets[0].send(b"request")
        self.served = 0
        self._greenlets: list[gevent.Greenlet] = []

    def serve(self, most: float = float("inf")) -> gevent.Greenlet:
        """Serve requests up to a number, each in a turn of the loop of its own."""
        self._greenlets.append(gevent.spawn(self._serve, most))
        return self._greenlets[-1]

    def _serve(self, most: float) -> None:
        while self.served < most:
            wait_read(self._sockets[1].fileno())
            self.served += 1

    def close(self) -> None:
        gevent.killall(self._greenlets)
        for each in self._sockets:
            each.close()


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_each_request_gets_one_turn(patient: FairShare) -> None:
    def is_called_in_its_turn() -> bool:
        called: list[bool] = []
        began = Event()
        patient.request_turn(lambda: called.append(patient.turn_is_over))
        patient.request_turn(began.set)
        assert called == [], "not before the hub runs"
        assert began.wait(10)
        assert len(called) == 1
        assert patient.turn_is_over
        return called == [False]

    # A turn lasts for a millisecond; a busy machine may halt the process for longer.
    wait_for(is_called_in_its_turn)


def test_a_turn_waits_for_requests_that_are_ready(
    patient: FairShare, site: Site
) -> None:
    seen: list[int] = []
    site.serve(100)
    gevent.sleep(0)
    patient.request_turn(lambda: seen.append(site.served))
    wait_for(lambda: seen)
    assert seen == [100]


def test_a_site_that_is_never_idle_does_not_starve_consumers(
    made: list[FairShare], site: Site
) -> None:
    made.append(FairShare(Pace(NEVER, longest=0.05), share=0.02))
    seen: list[int] = []
    site.serve()
    wait_for(lambda: site.served)
    for _ in range(3):
        made[0].request_turn(lambda: seen.append(site.served))
    wait_for(lambda: len(seen) == 3)
    assert seen[0] > 1


def test_a_turn_is_short(patient: FairShare, site: Site) -> None:
    """Requests are served between two messages that take longer than a turn."""
    seen: list[int] = []

    def begin() -> None:
        seen.append(site.served)
        site.serve(site.served + 2)
        spin(TURN_SECONDS * 1.5)

    for _ in range(3):
        patient.request_turn(begin)
    wait_for(lambda: len(seen) == 3)
    assert seen == [0, 2, 4]


def test_quick_messages_share_a_turn(patient: FairShare) -> None:
    seen: list[float] = []

    def begin() -> None:
        seen.append(patient._turn_until)
        if len(seen) < 5:
            patient.request_turn(begin)

    patient.request_turn(begin)
    wait_for(lambda: len(seen) == 5)
    assert len(set(seen)) < 5


@pytest.fixture
def hog() -> Iterator[gevent.Greenlet]:
    """A greenlet that makes the hub late."""
    hog = gevent.spawn(_hog)
    yield hog
    hog.kill()


def _hog() -> None:
    while True:
        spin(0.1)
        spend(0.001)


def test_a_late_hub_keeps_turns_apart(
    made: list[FairShare], hog: gevent.Greenlet
) -> None:
    turns = FairShare(Pace(target=0.02, longest=0.05), share=0.02)
    made.append(turns)
    counts: list[int] = [0]

    def begin() -> None:
        counts[0] += 1
        turns.request_turn(begin)

    turns.request_turn(begin)
    wait_for(lambda: turns.is_slowed)
    at = counts[0]
    wait_for(lambda: counts[0] > at)
    hog.kill()
    wait_for(lambda: turns.pace.pause == 0.0, timeout=60)


def test_nothing_is_left_in_the_hub_while_no_turn_is_requested(
    patient: FairShare,
) -> None:
    began = Event()
    patient.request_turn(began.set)
    assert began.wait(10)
    watchers = (patient._hub_is_idle, patient._latest, patient._probe)
    wait_for(lambda: not any(watcher.active for watcher in watchers))


# -- the pace, in virtual time ------------------------------------------------------

TARGET, LONGEST = 0.01, 0.05


def feed(pace: Pace, late: float, times: int) -> list[float]:
    """Feed the same latency several times; the pause after each."""
    found = []
    for _ in range(times):
        pace.feed(late)
        found.append(pace.pause)
    return found


@pytest.fixture
def pace() -> Pace:
    return Pace(TARGET, LONGEST)


def test_there_is_no_pause_while_the_hub_is_in_time(pace: Pace) -> None:
    assert feed(pace, TARGET * 0.9, 100) == [0.0] * 100
    assert not pace.is_slowest


def test_one_late_sample_makes_no_pause(pace: Pace) -> None:
    assert feed(pace, TARGET * 4, 1) == [0.0]
    assert feed(pace, 0.0, 50) == [0.0] * 50


def test_pauses_grow_steadily_up_to_the_longest(pace: Pace) -> None:
    pauses = feed(pace, TARGET * 2, 60)
    assert pauses == sorted(pauses)
    steps = [b / a for a, b in zip(pauses, pauses[1:], strict=False) if a]
    assert max(steps) < 1.5, "no jumps"
    assert pauses[-1] == LONGEST
    assert pace.is_slowest


def test_pauses_shrink_to_none_when_the_hub_is_in_time_again(pace: Pace) -> None:
    feed(pace, TARGET * 2, 60)
    pauses = feed(pace, 0.0, 60)
    assert pauses[:5] != [0.0] * 5, "not at once"
    assert pauses[-1] == 0.0
    assert not pace.is_slowest


def test_the_pause_settles_where_messages_make_the_hub_late(pace: Pace) -> None:
    """The hub is late because of the messages: longer pauses make it less late."""
    seen = []
    for _ in range(2_000):
        late = 0.03 / (1 + pace.pause / 0.002)
        pace.feed(late)
        seen.append(late)
    assert pace.pause < LONGEST
    assert sum(seen[-500:]) / 500 == pytest.approx(TARGET, rel=0.2)


# -- with handlers ------------------------------------------------------------------


def steps_with(**config: t.Any) -> list[int]:
    """Numbers of messages that were begun between two sleeps of another greenlet."""
    worker_app = AppWithWorkers(QCONSUME_PREFETCH=500, **config)
    begun: list[int] = []

    @worker_app.qconsume.consumer("work")
    def work(body: t.Any) -> None:
        begun.append(body)
        spin(TURN_SECONDS)

    worker_app.consumers.publish_many([("work", number) for number in range(300)])
    worker = Worker(worker_app.app, beside_web=True)
    worker.start()
    seen = [0]
    while len(begun) < 300:
        spend(TURN_SECONDS)
        seen.append(len(begun))
    assert worker.stop()
    return [after - before for before, after in zip(seen, seen[1:], strict=False)]


def test_handlers_that_compute_delay_the_site_by_one_message_only() -> None:
    """Counted in messages and not in seconds, so that no slow machine matters."""
    before = steps_with(QCONSUME_HUB_LATENCY=0)
    after = steps_with()
    assert sum(before) == sum(after) == 300
    assert max(after) <= max(before) / 10
