"""The memory broker, where it is its own: a virtual clock, and names."""

from __future__ import annotations

import typing as t

import gevent
import pytest

from flask_qconsume import Message
from flask_qconsume import QConsume
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.compose import compose
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.memory import Memory
from flask_qconsume.brokers.memory.link import MemoryLink
from flask_qconsume.brokers.memory.store import MemoryQueue
from flask_qconsume.brokers.memory.store import Store
from flask_qconsume.brokers.memory.store import create_stored
from tests.apps import make_app


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class MemoryApp:
    """A broker on a virtual clock, with the queues 'billing' and 'audit'."""

    def __init__(self, **config: t.Any) -> None:
        qconsume = QConsume()
        qconsume.add_consumer("billing", print, name="bill")
        qconsume.add_consumer("audit", print, name="audit", routing_key="order.#")
        self.clock = Clock()
        found = make_app(qconsume, **config).extensions["qconsume"]
        self.broker = t.cast(Memory, found.broker)
        self.broker.store = Store(self.clock)
        self.plan = found.topology.queue("billing")
        self.audit = found.topology.queue("audit")
        self.letters = self.broker.dead_letters(self.plan)

    def publish(
        self, body: t.Any, routing_key: str = "billing", **options: t.Any
    ) -> list[Exception | None]:
        message = compose("qconsume", routing_key, body, **options)
        return self.broker.publish([message], timeout=1)

    def link(self, lane: Lane = Lane.MAIN, plan: t.Any = None) -> MemoryLink:
        link = self.broker.connect(plan or self.plan, lane, prefetch=10)
        return t.cast(MemoryLink, link)

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        for plan in (self.plan, self.audit):
            self.broker.store.queue(plan.name).wake()


@pytest.fixture
def memory_app() -> MemoryApp:
    return MemoryApp()


def bodies(deliveries: t.Iterable[Delivery]) -> list[t.Any]:
    return [delivery.message.raw for delivery in deliveries]


# -- order and delay -------------------------------------------------------------------


def test_priorities_come_first_and_within_one_the_oldest(memory_app: MemoryApp) -> None:
    for body, priority in [(1, None), (2, 9), (3, 0), (4, 5), (5, 9)]:
        memory_app.publish(body, priority=priority)
    link = memory_app.link()
    assert bodies(link.read(10)) == [b"2", b"5", b"4", b"1", b"3"]
    link.close()


def test_a_delayed_message_is_held_back_until_it_is_due(memory_app: MemoryApp) -> None:
    memory_app.publish("late", delay=30)
    memory_app.publish("soon", delay=5)
    memory_app.publish("now")
    link = memory_app.link()
    assert bodies(link.read(10)) == [b'"now"']
    assert memory_app.broker.depth("billing") == 0
    memory_app.advance(4.9)
    assert memory_app.broker.depth("billing") == 0
    memory_app.advance(0.1)
    assert bodies(link.read(10)) == [b'"soon"']
    memory_app.advance(25)
    assert bodies(link.read(10)) == [b'"late"']
    link.close()


def test_a_reader_that_waits_is_woken_when_a_message_is_due(
    memory_app: MemoryApp,
) -> None:
    memory_app.publish("late", delay=30)
    link = memory_app.link()
    reading = gevent.spawn(link.read, 10)
    gevent.sleep(0)
    assert not reading.ready()
    memory_app.advance(30)
    assert bodies(reading.get(timeout=5)) == [b'"late"']
    link.close()


def test_a_reader_wakes_by_itself_on_a_real_clock() -> None:
    queue = MemoryQueue()
    queue.put([create_stored(Message(b"x", "q"))], delay=0.02)
    (entry,) = queue.take(1, lambda: False)
    assert entry.message.raw == b"x"


def test_many_readers_get_each_message_once(memory_app: MemoryApp) -> None:
    links = [memory_app.link() for _ in range(4)]
    readers = [gevent.spawn(link.read, 3) for link in links]
    gevent.sleep(0)
    for n in range(12):
        memory_app.publish(n)
    found = [raw for r in readers for raw in bodies(r.get(timeout=5))]
    found += [raw for raw in bodies(links[0].read(12))] if len(found) < 12 else []
    assert sorted(map(int, found)) == list(range(12))
    for link in links:
        link.close()


# -- links -----------------------------------------------------------------------------


def test_its_heart_needs_no_beat_and_its_delays_no_declaration(
    memory_app: MemoryApp,
) -> None:
    link = memory_app.link()
    link.keep_alive()
    memory_app.broker.declare_delays()
    memory_app.broker.close()
    assert not link.closed
    link.close()


def test_what_comes_back_is_not_the_message_that_a_handler_may_still_have(
    memory_app: MemoryApp,
) -> None:
    memory_app.publish(1)
    links = memory_app.link(), memory_app.link()
    (first,) = links[0].read(1)
    first.message.deadline = 10.0
    links[0].close()
    (again,) = links[1].read(1)
    again.message.deadline, again.message.body = 1_000.0, 1
    assert (first.message.deadline, first.message.body) == (10.0, None)
    links[1].close()


def test_a_message_returned_early_reaches_another_consumer_once(
    memory_app: MemoryApp,
) -> None:
    for n in range(3):
        memory_app.publish(n)
    link = memory_app.link()
    first, second, third = link.read(3)
    link.pause()
    link.release([third, first])
    other = memory_app.link()
    assert bodies(other.read(10)) == [b"0", b"2"]
    link.close()
    assert bodies(other.read(10)) == [b"1"]
    link.release([first])
    other.close()
    assert memory_app.broker.depth("billing") == 3


# -- forwarding ------------------------------------------------------------------------


def test_a_retry_goes_to_its_own_queue_only_and_remembers_where_it_was_from() -> None:
    memory_app = MemoryApp()
    memory_app.publish(1, "order.created", priority=4, key="k", headers={"a": 1})
    link = memory_app.link(plan=memory_app.audit)
    (delivery,) = link.read(1)
    headers = own_headers.make_retry_headers(delivery.message, 2)
    assert link.forward([Forward(delivery, Lane.MAIN, headers, delay=5)]) == [None]
    assert memory_app.broker.depth("audit") == 0
    memory_app.advance(5)
    (again,) = link.read(1)
    old, new = delivery.message, again.message
    assert (new.attempt, new.id, new.raw, new.priority) == (2, old.id, old.raw, 4)
    assert (new.exchange, new.routing_key, new.key) == (
        "qconsume",
        "order.created",
        "k",
    )
    assert (new.timestamp, new.queue, new.headers["a"]) == (old.timestamp, "audit", 1)
    assert not new.redelivered
    link.close()


def test_a_suspect_goes_to_the_lane_that_only_its_link_reads(
    memory_app: MemoryApp,
) -> None:
    memory_app.publish(1)
    link = memory_app.link()
    (delivery,) = link.read(1)
    headers = own_headers.make_suspect_headers(delivery.message, 1, 1.0)
    link.forward([Forward(delivery, Lane.SUSPECTS, headers)])
    assert memory_app.broker.depth("billing") == 0
    assert memory_app.broker.depth("billing.suspects") == 1
    lane = memory_app.link(Lane.SUSPECTS)
    (suspect,) = lane.read(1)
    assert suspect.message.deaths == 1
    assert suspect.message.queue == "billing.suspects"
    back = own_headers.make_retry_headers(suspect.message, 2)
    lane.forward([Forward(suspect, Lane.MAIN, back)])
    (healthy,) = link.read(1)
    assert (healthy.message.attempt, healthy.message.deaths) == (2, 0)
    link.close()
    lane.close()


def add_dead_letter(
    memory_app: MemoryApp, body: t.Any, expires: float | None = 60.0
) -> None:
    memory_app.publish(body, id=f"id-{body}")
    link = memory_app.link()
    (delivery,) = link.read(1)
    headers = own_headers.make_dead_letter_headers(
        delivery.message, "bill", "billing", f"no {body}", None, 1.0
    )
    link.forward([Forward(delivery, Lane.DEAD, headers, expires=expires)])
    link.close()


def test_dead_letters_are_listed_the_oldest_first_and_looking_changes_nothing(
    memory_app: MemoryApp,
) -> None:
    for n in range(3):
        add_dead_letter(memory_app, n)
    for _ in range(2):
        found = list(memory_app.letters)
        assert [letter.message.id for letter in found] == ["id-0", "id-1", "id-2"]
    assert memory_app.letters.count() == memory_app.broker.depth("billing.dead") == 3
    assert found[0].queue == "billing"
    assert found[0].headers[own_headers.REASON] == "no 0"
    assert found[0].message.raw == b"0"


def test_a_ref_is_of_one_dead_letter_only(memory_app: MemoryApp) -> None:
    for body in (1, 1, 2):
        add_dead_letter(memory_app, body)
    first, second, other = memory_app.letters
    assert first.message.id == second.message.id
    assert len({first.ref, second.ref, other.ref}) == 3
    assert [letter.ref for letter in memory_app.letters][1] == second.ref
    memory_app.letters.take(lambda letter: letter.ref == second.ref, replay=False)
    assert [letter.ref for letter in memory_app.letters] == [first.ref, other.ref]


def test_dead_letters_are_forgotten_in_time_each_by_itself(
    memory_app: MemoryApp,
) -> None:
    add_dead_letter(memory_app, 1, expires=60)
    add_dead_letter(memory_app, 2, expires=10)
    add_dead_letter(memory_app, 3, expires=None)
    memory_app.advance(10)
    assert [letter.message.id for letter in memory_app.letters] == ["id-1", "id-3"]
    memory_app.advance(10**9)
    assert [letter.message.id for letter in memory_app.letters] == ["id-3"]


def test_a_replay_puts_the_wanted_into_their_queue_as_if_new(
    memory_app: MemoryApp,
) -> None:
    for n in range(3):
        add_dead_letter(memory_app, n)
    looked: list[None] = []
    taken = memory_app.letters.take(
        lambda letter: letter.message.id != "id-1", True, lambda: looked.append(None)
    )
    assert (taken, len(looked)) == (2, 3)
    assert [letter.message.id for letter in memory_app.letters] == ["id-1"]
    assert memory_app.broker.depth("audit") == 0
    link = memory_app.link()
    first, second = link.read(10)
    assert [first.message.id, second.message.id] == ["id-0", "id-2"]
    assert (first.message.attempt, first.message.deaths) == (1, 0)
    assert own_headers.REASON not in first.message.headers
    assert first.message.expires_at is None
    assert (first.message.exchange, first.message.routing_key) == (
        "qconsume",
        "billing",
    )
    link.close()


def test_a_purge_removes_the_wanted_and_sends_nothing(memory_app: MemoryApp) -> None:
    for n in range(3):
        add_dead_letter(memory_app, n)
    assert (
        memory_app.letters.take(
            lambda letter: letter.message.id == "id-1", replay=False
        )
        == 1
    )
    assert [letter.message.id for letter in memory_app.letters] == ["id-0", "id-2"]
    assert memory_app.broker.depth("billing") == 0


def test_two_concurrent_replays_replay_each_letter_once(memory_app: MemoryApp) -> None:
    add_dead_letter(memory_app, 1)

    def take_it_from_under(letter: t.Any) -> bool:
        if memory_app.letters.count():
            memory_app.broker.dead_letters(memory_app.plan).take(
                lambda _: True, replay=True
            )
        return True

    assert memory_app.letters.take(take_it_from_under, replay=True) == 0
    assert memory_app.broker.depth("billing") == 1


# -- topology --------------------------------------------------------------------------


def test_brokers_without_a_name_share_nothing() -> None:
    one, two = MemoryApp(), MemoryApp()
    one.publish(1)
    two.publish(2)
    assert one.broker.depth("billing") == two.broker.depth("billing") == 1


def test_it_says_plainly_what_it_cannot_do() -> None:
    can = Memory.capabilities
    assert not (can.shared or can.durable or can.survives_worker_death)
    assert "lost" in can.guarantee
