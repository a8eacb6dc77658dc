"""Lost connections: stale deliveries, reconnecting, adoption, suspects and deaths."""

from __future__ import annotations

import typing as t
from collections import Counter

import pytest
from gevent.event import Event

from flask_qconsume import Reject
from flask_qconsume import current_message
from flask_qconsume.broker.link import Lane
from flask_qconsume.running import connection_loop
from flask_qconsume.running.backoff import Backoff
from flask_qconsume.running.suspects import triage

from ..waiting import wait_for
from .conftest import AppWithWorkers
from .outage import Outage
from .outage import play_outages


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_loop, "Backoff", lambda: Backoff(0.01, 0.05))


def main_link(broker: Outage) -> t.Any:
    return [link for link in broker.links if link.lane is Lane.MAIN][-1]


def test_consuming_goes_on_after_an_outage(worker_app: AppWithWorkers) -> None:
    done: list[t.Any] = []
    worker_app.qconsume.add_consumer("billing", done.append, name="bill")
    broker = play_outages(worker_app)
    worker = worker_app.start()
    wait_for(lambda: worker.ready)

    broker.down()
    wait_for(lambda: broker.refused > 4)
    assert not worker.ready
    worker_app.publish("billing", "while away")
    broker.up()

    wait_for(lambda: done == ["while away"])
    # The lane of suspects has a connection of its own, which takes its own time.
    wait_for(lambda: worker.ready)


def test_a_worker_starts_while_its_broker_is_away(worker_app: AppWithWorkers) -> None:
    done: list[t.Any] = []
    worker_app.qconsume.add_consumer("billing", done.append, name="bill")
    broker = play_outages(worker_app)
    broker.down()
    worker_app.start()
    worker_app.publish("billing", 1)
    wait_for(lambda: broker.refused > 2)
    broker.up()

    wait_for(lambda: done == [1])


def test_a_stop_during_an_outage_is_quick_and_clean(worker_app: AppWithWorkers) -> None:
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    broker = play_outages(worker_app)
    broker.down()
    worker = worker_app.start()
    wait_for(lambda: broker.refused > 2)

    assert worker.stop() is True


def test_a_running_handler_answers_for_the_message_delivered_again(
    worker_app: AppWithWorkers,
) -> None:
    """Its old delivery is stale; starting it a second time would be a duplicate."""
    go = Event()
    starts: Counter[int] = Counter()

    @worker_app.qconsume.consumer("billing")
    def bill(order: int) -> None:
        starts[order] += 1
        go.wait()

    broker = play_outages(worker_app)
    worker = worker_app.start()
    worker_app.publish("billing", 1)
    wait_for(lambda: worker.busy == 1)
    main_link(broker).cut()
    wait_for(lambda: len(broker.links) == 3)
    wait_for(lambda: broker.depth("billing") == 0)
    go.set()
    wait_for(lambda: worker.subscriptions[0].counts["ack"] == 1)
    assert worker.stop() is True

    assert starts == {1: 1}
    assert broker.depth("billing") == 0


@pytest.mark.parametrize("fate", ["handled", "rejected"])
def test_what_was_handled_while_the_broker_was_away_is_not_handled_again(
    worker_app: AppWithWorkers, fate: str
) -> None:
    """Else a handler that computes past the heartbeat would be repeated forever."""
    go = Event()
    starts: Counter[str] = Counter()

    @worker_app.qconsume.consumer("billing")
    def bill(order: str) -> None:
        starts[order] += 1
        go.wait()
        if order == "rejected":
            raise Reject("no good")

    broker = play_outages(worker_app)
    worker = worker_app.start()
    worker_app.publish("billing", fate)
    wait_for(lambda: worker.busy == 1)
    broker.down()
    go.set()
    wait_for(lambda: worker.busy == 0)
    broker.up()
    wait_for(lambda: worker.ready)
    wait_for(lambda: broker.depth("billing") == 0)
    assert worker.stop() is True

    assert starts == {fate: 1}
    assert broker.depth("billing") == 0
    assert len(worker_app.dead("billing")) == (fate == "rejected")


def test_a_stale_delivery_is_never_settled(worker_app: AppWithWorkers) -> None:
    """A message without an id cannot be recognised: it is handled again."""
    go = Event()
    starts: Counter[str] = Counter()

    @worker_app.qconsume.consumer("billing", concurrency=1)
    def bill(order: str) -> None:
        starts[order] += 1
        go.wait()

    broker = play_outages(worker_app)
    worker = worker_app.start()
    worker_app.publish("billing", "order")
    wait_for(lambda: worker.busy == 1)
    link = main_link(broker)
    (entry,) = link._unsettled.values()
    object.__setattr__(entry.message, "id", None)
    link.cut()
    wait_for(lambda: worker.subscriptions[0].counts["suspect"] == 1)
    go.set()
    wait_for(lambda: starts == {"order": 2})
    assert worker.stop() is True

    assert worker.subscriptions[0].settler.stale_count == 1
    assert broker.depth("billing") == 0


def test_a_message_of_a_dead_process_is_handled_in_the_lane(
    worker_app: AppWithWorkers,
) -> None:
    seen: list[t.Any] = []

    @worker_app.qconsume.consumer("billing", routing_key="order.created")
    def bill(order: t.Any) -> None:
        seen.append((order, current_message.attempt, current_message.routing_key))

    broker = play_outages(worker_app)
    worker_app.publish("order.created", 1)
    dead_process = broker.connect(
        worker_app.consumers.topology.queue("billing"), Lane.MAIN, 1
    )
    dead_process.read(1)
    dead_process.cut()  # type: ignore[attr-defined]
    worker = worker_app.start()
    wait_for(lambda: seen)

    assert seen == [(1, 1, "order.created")]
    main, lane = worker.subscriptions
    assert (main.counts["suspect"], main.counts["ack"]) == (1, 0)
    wait_for(lambda: lane.counts["ack"] == 1)


@pytest.mark.parametrize("limit", [2, 3, 5])
def test_a_message_that_kills_becomes_a_dead_letter_at_the_limit(
    worker_app: AppWithWorkers, limit: int
) -> None:
    """Each 'process' reads as its worker would, and dies with the message in hand."""
    worker_app.config["QCONSUME_DELIVERY_LIMIT"] = limit
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    broker = play_outages(worker_app)
    plan = worker_app.consumers.topology.queue("billing")
    consumer = worker_app.consumers.consumers["bill"]
    worker_app.publish("billing", "killer")
    starts = 0
    while not worker_app.dead("billing"):
        for lane in (Lane.MAIN, Lane.SUSPECTS):
            queue = plan.name if lane is Lane.MAIN else plan.suspects
            while broker.depth(queue):
                process = broker.connect(plan, lane, 1)
                (delivery,) = process.read(1)
                forward = triage(
                    delivery, lane, consumer, worker_app.consumers.settings
                )
                if forward is not None:
                    process.forward([forward])
                    process.close()
                    continue
                starts += 1
                process.cut()  # type: ignore[attr-defined]

    assert starts == limit
    (dead,) = worker_app.dead("billing")
    assert f"= {limit} starts are reached" in dead.headers["x-qconsume-reason"]


def test_a_stop_in_the_lane_does_not_count_as_a_death(
    worker_app: AppWithWorkers,
) -> None:
    started = Event()

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        started.set()
        Event().wait()

    broker = play_outages(worker_app)
    worker_app.publish("billing", 1)
    plan = worker_app.consumers.topology.queue("billing")
    process = broker.connect(plan, Lane.MAIN, 1)
    process.read(1)
    process.cut()  # type: ignore[attr-defined]
    worker = worker_app.start()
    started.wait()

    assert worker.stop(timeout=0.01) is False
    (entry,) = broker.store.queue(plan.suspects).take(9, lambda: False)
    assert entry.message.redelivered is False
    assert entry.message.deaths == 0


def test_a_suspect_that_fails_by_an_error_is_cleared(
    worker_app: AppWithWorkers,
) -> None:
    """The message did not kill the process: its next attempt is in the queue again."""

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        if current_message.attempt == 1:
            raise OSError("gateway")
        raise Reject(f"deaths: {current_message.headers.get('x-qconsume-deaths')}")

    broker = play_outages(worker_app)
    worker_app.publish("billing", 1)
    process = broker.connect(
        worker_app.consumers.topology.queue("billing"), Lane.MAIN, 1
    )
    process.read(1)
    process.cut()  # type: ignore[attr-defined]
    worker = worker_app.start()
    wait_for(lambda: worker_app.dead("billing"))

    main, lane = worker.subscriptions
    assert lane.counts["retry"] == 1
    assert worker_app.dead("billing")[0].headers["x-qconsume-attempts"] == 2


def test_a_dead_letter_that_is_refused_waits_unsettled(
    worker_app: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other messages go on, and it arrives once the broker takes it."""
    done: list[t.Any] = []
    monkeypatch.setattr(
        "flask_qconsume.running.settler.Backoff", lambda: Backoff(0.01, 0.05)
    )

    @worker_app.qconsume.consumer("billing")
    def bill(order: t.Any) -> None:
        if order == "bad":
            raise Reject("no good")
        done.append(order)

    broker = play_outages(worker_app)
    broker.is_full = True
    worker_app.start()
    worker_app.publish("billing", "bad")
    worker_app.publish("billing", "good")
    wait_for(lambda: done == ["good"])
    assert not worker_app.dead("billing")
    broker.is_full = False

    wait_for(lambda: worker_app.dead("billing"))


def test_a_connection_that_delivered_was_a_good_one(
    worker_app: AppWithWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is cut again and again is replaced after the first delay."""
    delays: list[float] = []

    class Noted(Backoff):
        def next(self) -> float:
            delays.append(self._next)
            return super().next() / 100

    monkeypatch.setattr(connection_loop, "Backoff", Noted)
    done: list[t.Any] = []
    worker_app.qconsume.add_consumer("billing", done.append, name="bill")
    broker = play_outages(worker_app)
    worker_app.start()
    for number in range(6):
        worker_app.publish("billing", number)
        wait_for(lambda number=number: len(done) > number)
        main_link(broker).cut()

    worker_app.publish("billing", 6)
    wait_for(lambda: len(done) == 7)
    assert delays == [1.0] * 6
