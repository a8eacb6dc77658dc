"""Turns on a real hub: who goes first, and that nobody starves."""

from __future__ import annotations

import socket
import time
import typing as t
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event
from gevent.socket import wait_read

from flask_qconsume.running.fair_share import SLICE
from flask_qconsume.running.fair_share import Turns
from flask_qconsume.running.pace import Pace
from flask_qconsume.running.worker import Worker

from ..waiting import wait_for
from .conftest import Bench

#: Longer than any test: a turn that comes by it is a failure.
NEVER = 3600.0


@pytest.fixture
def made() -> Iterator[list[Turns]]:
    made: list[Turns] = []
    yield made
    for turns in made:
        turns.close()


@pytest.fixture
def patient(made: list[Turns]) -> Turns:
    """Waits for an idle hub, for as long as it takes."""
    made.append(Turns(Pace(NEVER, NEVER), share=1e-9))
    return made[-1]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


class Site:
    """Requests that are always there: a socket that can be read at any time."""

    def __init__(self) -> None:
        self._sockets = socket.socketpair()
        self._sockets[0].send(b"request")
        self.served = 0
        self._greenlets: list[gevent.Greenlet] = []

    def serve(self, most: float = float("inf")) -> gevent.Greenlet:
        """Serve so many, each on a turn of the loop of its own."""
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


def test_whoever_asks_gets_one_turn(patient: Turns) -> None:
    called: list[bool] = []
    began = Event()
    patient.ask(lambda: called.append(patient.over))
    patient.ask(began.set)
    assert called == [], "not before the hub runs"
    assert began.wait(10)
    assert called == [False]
    assert patient.over


def test_what_is_ready_goes_first(patient: Turns, site: Site) -> None:
    seen: list[int] = []
    site.serve(100)
    gevent.sleep(0)
    patient.ask(lambda: seen.append(site.served))
    wait_for(lambda: seen)
    assert seen == [100]


def test_a_site_that_is_never_idle_does_not_starve_it(
    made: list[Turns], site: Site
) -> None:
    made.append(Turns(Pace(NEVER, longest=0.05), share=0.02))
    seen: list[int] = []
    site.serve()
    wait_for(lambda: site.served)
    for _ in range(3):
        made[0].ask(lambda: seen.append(site.served))
    wait_for(lambda: len(seen) == 3)
    assert seen[0] > 1


def test_a_turn_is_short(patient: Turns, site: Site) -> None:
    """Requests are served between two that take longer than a turn."""
    seen: list[int] = []

    def begin() -> None:
        seen.append(site.served)
        site.serve(site.served + 2)
        spin(SLICE * 1.5)

    for _ in range(3):
        patient.ask(begin)
    wait_for(lambda: len(seen) == 3)
    assert seen == [0, 2, 4]


def test_quick_ones_share_a_turn(patient: Turns) -> None:
    seen: list[float] = []

    def begin() -> None:
        seen.append(patient._until)
        if len(seen) < 5:
            patient.ask(begin)

    patient.ask(begin)
    wait_for(lambda: len(seen) == 5)
    assert len(set(seen)) < 5


@pytest.fixture
def hog() -> Iterator[gevent.Greenlet]:
    """Something that makes the hub late."""
    hog = gevent.spawn(_hog)
    yield hog
    hog.kill()


def _hog() -> None:
    while True:
        spin(0.1)
        gevent.sleep(0.001)


def test_a_late_hub_keeps_turns_apart(made: list[Turns], hog: gevent.Greenlet) -> None:
    turns = Turns(Pace(target=0.02, longest=0.05), share=0.02)
    made.append(turns)
    counts: list[int] = [0]

    def begin() -> None:
        counts[0] += 1
        turns.ask(begin)

    turns.ask(begin)
    wait_for(lambda: turns.slowed)
    at = counts[0]
    wait_for(lambda: counts[0] > at)
    hog.kill()
    wait_for(lambda: turns.pace.pause == 0.0, timeout=60)


def test_nothing_is_left_in_the_hub_while_nobody_asks(patient: Turns) -> None:
    began = Event()
    patient.ask(began.set)
    assert began.wait(10)
    watchers = (patient._idle, patient._latest, patient._probe)
    wait_for(lambda: not any(watcher.active for watcher in watchers))


# -- with handlers ------------------------------------------------------------------


def steps_with(**config: t.Any) -> list[int]:
    """How many messages were begun between two turns of somebody else's timer."""
    bench = Bench(QCONSUME_PREFETCH=500, **config)
    begun: list[int] = []

    @bench.qconsume.consumer("work")
    def work(body: t.Any) -> None:
        begun.append(body)
        spin(SLICE)

    bench.consumers.publish_many([("work", number) for number in range(300)])
    worker = Worker(bench.app, beside_web=True)
    worker.start()
    seen = [0]
    while len(begun) < 300:
        gevent.sleep(SLICE)
        seen.append(len(begun))
    assert worker.stop()
    return [after - before for before, after in zip(seen, seen[1:], strict=False)]


def test_handlers_that_compute_hold_up_the_site_for_one_message_only() -> None:
    """Counted in messages and not in seconds, so that no slow machine matters."""
    before = steps_with(QCONSUME_HUB_LATENCY=0)
    after = steps_with()
    assert sum(before) == sum(after) == 300
    assert max(after) <= max(before) / 10
