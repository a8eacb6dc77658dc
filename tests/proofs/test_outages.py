"""Publishing and consuming resume by themselves after an outage."""

from __future__ import annotations

import itertools
import threading
import time
import typing as t

import pytest

from flask_qconsume import BrokerError

from ..waiting import wait_for
from .conftest import Deployment
from .conftest import MakeDeployment
from .conftest import on_each_broker


class Publishing:
    """A publisher of consecutive numbers, until it is stopped."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: The numbers that the broker confirmed.
        self.confirmed: list[int] = []
        #: The time of each confirmation.
        self.times: list[float] = []
        self.failed = 0

    def __enter__(self) -> Publishing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for n in itertools.count():
            if self._stop.wait(0.002):
                return
            try:
                self._deployment.publish([n])
            except BrokerError:
                self.failed += 1
            else:
                self.confirmed.append(n)
                self.times.append(time.monotonic())

    def await_more(self, number: int, timeout: float = 60) -> None:
        """Wait until ``number`` more messages are confirmed."""
        wanted = len(self.confirmed) + number
        wait_for(lambda: len(self.confirmed) >= wanted, timeout)


def longest_silence(times: t.Sequence[float]) -> float:
    """Return the longest time between two consecutive times, in seconds."""
    return max(b - a for a, b in itertools.pairwise(sorted(times)))


@pytest.mark.deadline(600)
@on_each_broker(but=("sqlite",))
@pytest.mark.parametrize("restarts", [1, pytest.param(5, marks=pytest.mark.long)])
def test_restarts_of_the_broker_lose_nothing(
    make_deployment: MakeDeployment, broker: str, restarts: int
) -> None:
    deployment = make_deployment(broker)
    worker = deployment.fleet.start()
    with Publishing(deployment) as publishing:
        for _ in range(restarts):
            publishing.await_more(300)
            deployment.server.restart()
        publishing.await_more(300)
    deployment.await_done(publishing.confirmed, timeout=120)

    doubles = sum(n > 1 for n in deployment.ledger.counted().values())
    silence = longest_silence([line.at for line in deployment.ledger.lines()])
    print(
        f"{broker}: {restarts} restarts, {len(publishing.confirmed)} confirmed,"
        f" {publishing.failed} refused, {doubles} handled twice,"
        f" {silence:.1f} s the longest silence"
    )
    assert worker.poll() is None
    assert deployment.fleet.term(worker) == 0
    assert deployment.dead() == []


@pytest.mark.long
@pytest.mark.deadline(300)
@on_each_broker(but=("classic", "sqlite"))
def test_a_broker_that_is_away_for_long_loses_nothing(
    make_deployment: MakeDeployment, broker: str
) -> None:
    deployment = make_deployment(broker)
    worker = deployment.fleet.start()
    with Publishing(deployment) as publishing:
        publishing.await_more(300)
        deployment.server.restart(away=20)
        publishing.await_more(300)
    deployment.await_done(publishing.confirmed, timeout=120)

    print(f"{broker}: {publishing.failed} refused while it was away")
    assert worker.poll() is None
    assert deployment.fleet.term(worker) == 0
