"""Numbers of waiting messages, for all queues in one query."""

from __future__ import annotations

import time

from flask_qconsume.broker.base import SuspectsStatus
from flask_qconsume.broker.topology import QueuePlan

from .tools import QUEUE
from .tools import SqlQueue
from .tools import dead_letter
from .tools import retry
from .tools import run

SOON = 20.0


def plan(name: str) -> QueuePlan:
    return QueuePlan(name, name, "classic", ())


def test_each_number_is_of_its_queue(queue: SqlQueue) -> None:
    queue.publish(1, 2, 3, 4)
    queue.publish(5, delay=600)
    link = queue.link()
    first, second, third = queue.take(link, 3)
    link.forward([dead_letter(first), retry(second, delay=600.0)])
    before = time.time()
    other, status, missing = queue.broker.read_backlog(
        [plan("other"), queue.plan, plan("nothing")], SOON
    )
    assert (status.waiting, status.delayed, status.in_hand) == (1, 2, 1)
    assert (status.dead_letters, status.suspects) == (1, SuspectsStatus(0))
    assert status.oldest is not None and before - 60 < status.oldest <= before + 1
    assert other == missing
    assert (missing.waiting, missing.oldest, missing.in_hand) == (0, None, 0)
    assert queue.broker.read_statuses([queue.plan]) == [status]
    link.ack([third])


def test_due_and_expired_messages_are_counted_before_they_are_noticed(
    queue: SqlQueue,
) -> None:
    """No worker runs that would make them ready, or delete them."""
    queue.publish(1, 2, 3, 4, 5)
    run(queue, "UPDATE qconsume_message SET due = 1000, since = 1000 WHERE id = 1")
    run(queue, "UPDATE qconsume_message SET expires = 1 WHERE id > 3")
    (status,) = queue.broker.read_statuses([queue.plan])
    assert (status.waiting, status.delayed, status.oldest) == (3, 0, 1000.0)
    run(queue, "UPDATE qconsume_message SET due = 99999999999, expires = 1")
    (status,) = queue.broker.read_statuses([queue.plan])
    assert (status.waiting, status.delayed, status.oldest) == (0, 5, None)


def test_the_oldest_is_found_behind_retries_and_in_any_priority(
    queue: SqlQueue,
) -> None:
    queue.publish(*range(50))
    queue.publish(*range(50), priority=9)
    late = "UPDATE qconsume_message SET since = 2000 WHERE"
    run(queue, f"{late} id <= 100")
    run(queue, "UPDATE qconsume_message SET since = 1000.5 WHERE id = 40")
    assert queue.broker.read_statuses([queue.plan])[0].oldest == 1000.5
    run(queue, "UPDATE qconsume_message SET since = 500.25 WHERE id = 99")
    assert queue.broker.read_statuses([queue.plan])[0].oldest == 500.25


def test_without_tables_nothing_waits(queue: SqlQueue) -> None:
    (status,) = queue.broker.read_backlog([queue.plan], SOON)
    assert (status.waiting, status.dead_letters) == (0, 0)
    assert queue.broker.depth(QUEUE) == 0
    assert queue.broker.read_suspects(queue.plan) == SuspectsStatus(0)
