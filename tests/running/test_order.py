"""Links that keep an order, or lose a part of what they gave out while all is well."""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Sequence

import pytest
from gevent.event import Event

from flask_qconsume import current_message
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.brokers.memory import Memory
from flask_qconsume.brokers.memory.link import MemoryLink
from flask_qconsume.brokers.memory.store import create_stored

from ..waiting import wait_for
from .conftest import AppWithWorkers


class PartedDelivery(Delivery):
    """One that goes stale by itself."""

    gone = False

    @property
    def stale(self) -> bool:
        return self.gone or super().stale


class PartedLink(MemoryLink):
    """Keeps an order, as far as a subscription can see that."""

    keeps_order = True

    def __init__(self, *arguments: t.Any) -> None:
        super().__init__(*arguments)
        self.given: list[PartedDelivery] = []
        self.postponed: list[tuple[int, float]] = []

    def read(self, room: int) -> Sequence[Delivery]:
        found = [PartedDelivery(self, d.tag, d.message) for d in super().read(room)]
        self.given += found
        return found

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        assert not any(delivery.stale for delivery in deliveries)
        super().ack(deliveries)

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        assert isinstance(delivery, PartedDelivery)
        assert not delivery.stale
        delivery.gone = True
        self.postponed.append((attempt, delay))
        assert self._mark_settled(delivery)
        again = dataclasses.replace(delivery.message, attempt=attempt)
        self._queue.put([create_stored(again)])


class Parted(Memory):
    """The memory broker with such links."""

    capabilities = dataclasses.replace(
        Memory.capabilities, orderings=("none", "key", "partition")
    )

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        self._declare_once()
        self.link = PartedLink(self.store, plan, lane)
        return self.link


@pytest.fixture
def broker(worker_app: AppWithWorkers) -> t.Callable[[], Parted]:
    """Gives the app such a broker, once its consumers are registered."""

    def make() -> Parted:
        consumers = worker_app.consumers
        made = Parted(consumers.settings, consumers.topology)
        consumers._broker.made = made
        return made

    return make


def test_what_went_stale_on_a_link_that_is_well_makes_room(
    worker_app: AppWithWorkers, broker: t.Callable[[], Parted]
) -> None:
    go, seen = Event(), []

    @worker_app.qconsume.consumer("billing", concurrency=1, prefetch=2)
    def bill(order: t.Any) -> None:
        seen.append(order)
        go.wait()

    made = broker()
    worker = worker_app.start()
    for number in range(4):
        worker_app.publish("billing", number)
    wait_for(lambda: worker.busy == 1 and len(made.link.given) == 2)
    for delivery in made.link.given:
        delivery.gone = True
    go.set()
    wait_for(lambda: made.depth("billing") == 0 and worker.busy == 0)

    # One was being handled, one was not begun, and both had been taken away.
    assert seen == [0, 2, 3]
    assert [delivery.settled for delivery in made.link.given] == [
        False,
        False,
        True,
        True,
    ]
    assert not made.link.closed


def test_a_retry_is_left_with_a_link_that_keeps_an_order(
    worker_app: AppWithWorkers, broker: t.Callable[[], Parted]
) -> None:
    attempts: list[int] = []
    retry = {"max_attempts": 3, "min_delay": 100, "factor": 2, "jitter": 0}

    @worker_app.qconsume.consumer("billing", retry=retry, concurrency=1, prefetch=1)
    def bill(order: t.Any) -> None:
        attempts.append(current_message.attempt)
        raise OSError("gateway down")

    made = broker()
    worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker_app.dead("billing"))

    assert attempts == [1, 2, 3]
    assert made.link.postponed == [(2, 100.0), (3, 200.0)]
    (dead,) = worker_app.dead("billing")
    assert dead.headers["x-qconsume-attempts"] == 3


@pytest.mark.parametrize(("deaths", "handled"), [(0, True), (1, True), (2, False)])
def test_a_suspect_is_handled_where_it_is_until_it_has_killed_too_often(
    worker_app: AppWithWorkers,
    broker: t.Callable[[], Parted],
    deaths: int,
    handled: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[t.Any] = []

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        seen.append(order)

    made = broker()
    made.declare()
    worker_app.publish("billing", 1)
    queue = made.store.queue("billing")
    (entry,) = queue.take(1, lambda: False)
    marked = dataclasses.replace(entry.message, redelivered=True, deaths=deaths)
    queue.put([entry._replace(message=marked)])
    worker = worker_app.start()
    if handled:
        wait_for(lambda: worker.subscriptions[0].counts["ack"] == 1)
        assert (seen, worker_app.dead("billing")) == ([1], [])
        return
    (dead,) = wait_for(lambda: worker_app.dead("billing"))
    assert seen == []
    assert "its process died 2 times" in dead.headers["x-qconsume-reason"]
    assert "is a dead letter: its process died 2 times" in caplog.text
