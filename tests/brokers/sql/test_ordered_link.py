"""A queue whose consumer has ``ordering="key"``."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest

from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.link import Delivery
from flask_qconsume.errors import TopologyMismatch

from .tools import SqlQueue
from .tools import bodies
from .tools import dead_letter
from .tools import end_lease
from .tools import look
from .tools import run


@pytest.fixture
def queue(database_url: str, open_queue: Callable[..., SqlQueue]) -> SqlQueue:
    return open_queue(database_url, ordering="key", lease=5)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(body) for body in bodies(deliveries)]


def fill(queue: SqlQueue, *keys: str) -> None:
    """Publish the numbers 0, 1, 2 …, each with its key; none for an empty one."""
    for number, key in enumerate(keys):
        queue.publish(number, key=key or None)


def test_one_message_of_each_key_is_in_hand(queue: SqlQueue) -> None:
    link = queue.link()
    fill(queue, "a", "a", "b", "", "a", "")
    first = look(link)
    assert numbers(first) == [0, 2, 3, 5]
    assert look(link) == []
    link.ack(first[:1])
    second = look(link)
    assert numbers(second) == [1]
    link.ack(second)
    assert numbers(look(link)) == [4]


def test_two_links_share_the_keys(queue: SqlQueue) -> None:
    one, two = queue.link(), queue.link()
    fill(queue, "a", "b", "a", "b")
    (first,) = look(one, 1)
    others = look(two)
    assert (numbers([first]), numbers(others)) == ([0], [1])
    one.ack([first])
    assert numbers(look(two)) == [2]


def test_a_delayed_retry_holds_its_key(queue: SqlQueue) -> None:
    link = queue.link()
    fill(queue, "a", "a", "b")
    first, other = look(link)
    link.postpone(first, 2, 0.5)
    assert look(link) == []
    (again,) = queue.take(link, 1)
    assert (numbers([again]), again.message.attempt) == ([0], 2)
    assert not again.message.redelivered
    link.ack([again, other])
    assert numbers(look(link)) == [1]


def test_a_retry_at_once_is_the_next_of_its_key(queue: SqlQueue) -> None:
    link = queue.link()
    fill(queue, "a", "a")
    for attempt in range(2, 5):
        (delivery,) = queue.take(link, 1)
        assert numbers([delivery]) == [0]
        link.postpone(delivery, attempt, 0.0)
    (delivery,) = look(link)
    assert (numbers([delivery]), delivery.message.attempt) == ([0], 4)


def test_a_returned_message_keeps_its_place(queue: SqlQueue) -> None:
    link, other = queue.link(), queue.link()
    fill(queue, "a", "a")
    link.pause()
    link.release(look(link))
    assert numbers(look(other)) == [0]


def test_a_dead_letter_makes_way_for_the_next_of_its_key(queue: SqlQueue) -> None:
    link = queue.link()
    fill(queue, "a", "a")
    assert link.forward([dead_letter(look(link)[0])]) == [None]
    assert numbers(look(link)) == [1]


def test_the_messages_of_one_key_do_not_keep_others_back(queue: SqlQueue) -> None:
    """More of them than one look at the table sees."""
    link = queue.link()
    queue.publish(*range(300), key="a")
    queue.publish(300, 301, key="b")
    assert numbers(look(link)) == [0, 300]


def test_acknowledging_wakes_a_reader_that_waits_for_the_key(queue: SqlQueue) -> None:
    link = queue.link()
    fill(queue, "a", "a")
    first = look(link)
    reading = gevent.spawn(queue.take, link, 1)
    gevent.sleep(0)
    link.ack(first)
    assert numbers(reading.get(timeout=5)) == [1]


def test_a_suspect_is_handled_alone_and_in_its_place(queue: SqlQueue) -> None:
    dying, link = queue.link(), queue.link()
    fill(queue, "a", "b", "a", "c")
    assert numbers(look(dying, 1)) == [0]
    busy = look(link, 1)
    assert numbers(busy) == [1]
    end_lease(dying)
    link.keep_alive()

    assert look(link) == [], "a suspect waits until nothing else is in hand"
    link.ack(busy)
    (suspect,) = look(link)
    assert numbers([suspect]) == [0]
    assert (suspect.message.redelivered, suspect.message.deaths) == (True, 0)
    assert look(link) == [], "nothing else is begun beside a suspect"
    link.ack([suspect])
    assert numbers(look(link)) == [2, 3]


def test_only_deaths_of_a_suspect_in_hand_are_counted(queue: SqlQueue) -> None:
    fill(queue, "a", "a")
    watching = queue.link()
    for deaths in (None, 0, 1, 2):
        link = queue.link()
        (delivery,) = look(link)
        assert numbers([delivery]) == [0]
        assert delivery.message.redelivered is (deaths is not None)
        assert delivery.message.deaths == (deaths or 0)
        end_lease(link)
        watching.keep_alive()
    # A clean return is no death.
    link = queue.link()
    (delivery,) = look(link)
    link.pause()
    link.release([delivery])
    (delivery,) = look(watching)
    assert delivery.message.deaths == 3
    # An error of the handler proves that the message does not kill its process.
    watching.postpone(delivery, 2, 0.0)
    (delivery,) = look(watching)
    assert (delivery.message.redelivered, delivery.message.deaths) == (False, 0)
    assert own_headers.DEATHS not in delivery.message.headers


def test_a_message_that_was_stored_late_waits_for_a_later_one_in_hand(
    queue: SqlQueue,
) -> None:
    """Its transaction began first, and was committed last."""
    link = queue.link()
    fill(queue, "a", "a")
    run(queue, "UPDATE qconsume_message SET id = id + 10")
    later = look(link)
    run(queue, "UPDATE qconsume_message SET id = 1 WHERE owner IS NULL")
    assert look(link) == []
    link.ack(later)
    assert numbers(look(link)) == [1]


def test_a_postponement_that_fails_replaces_the_link(queue: SqlQueue) -> None:
    link = queue.link()
    fill(queue, "a")
    (delivery,) = look(link)
    run(queue, "DROP TABLE qconsume_message")
    link.postpone(delivery, 2, 0.0)
    assert not link.closed, "a closed link would end the reader without an error"
    with pytest.raises(TopologyMismatch, match="qconsume_message"):
        link.read(1)
    with pytest.raises(TopologyMismatch, match="qconsume_message"):
        link.keep_alive()


def test_a_key_far_behind_a_blocked_one_has_its_turn(queue: SqlQueue) -> None:
    link = queue.link()
    numbers = range(5_000)
    queue.publish(*numbers, key="a")
    queue.publish("b", key="b")
    first = look(link)
    found = look(link)
    while not found:
        found = look(link)
    assert bodies(found) == [b'"b"']
    link.ack(first)
    assert bodies(look(link)) == [b"1"]
