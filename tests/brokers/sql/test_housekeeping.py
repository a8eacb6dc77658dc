"""Messages of dead links are given back, and what has expired is deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flask_qconsume.brokers.sql import housekeeping
from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.database import StepResult

from .tools import QUEUE
from .tools import SqlQueue
from .tools import dead_letter
from .tools import end_lease
from .tools import execute
from .tools import look
from .tools import run


def count(url: str, table: str) -> int:
    ((number,),) = execute(url, f"SELECT count(*) FROM qconsume_{table}")
    return int(number)


def test_expired_rows_are_deleted_in_portions(
    database_url: str, queue: SqlQueue
) -> None:
    queue.publish(*range(1_500))
    link = queue.link()
    for delivery in queue.take(link, 3):
        link.forward([dead_letter(delivery)])
    run(queue, "UPDATE qconsume_message SET expires = 1 WHERE id > 100")
    run(queue, "UPDATE qconsume_dead SET until = 1 WHERE id > 1")
    link.keep_alive()
    assert (count(database_url, "message"), count(database_url, "dead")) == (97, 1)


def test_an_expired_message_in_hand_stays(database_url: str, queue: SqlQueue) -> None:
    queue.publish(1, expires=600)
    link = queue.link()
    delivery = queue.take_one(link)
    run(queue, "UPDATE qconsume_message SET expires = 1")
    link.keep_alive()
    assert count(database_url, "message") == 1
    link.ack([delivery])


def test_messages_of_many_queues_are_given_back_by_any_link(
    queue: SqlQueue, open_queue: Callable[..., SqlQueue], database_url: str
) -> None:
    queue.publish(*range(1_100))
    dead = queue.link()
    while len(look(dead, 500)):
        pass
    run(queue, "UPDATE qconsume_message SET queue = 'other' WHERE id % 2 = 0")
    end_lease(dead)
    open_queue(database_url).link().keep_alive()
    rows = execute(
        database_url,
        "SELECT queue, count(*) FROM qconsume_message WHERE owner IS NULL"
        " AND redelivered GROUP BY 1 ORDER BY 1",
    )
    assert rows == [(QUEUE, 550), ("other", 550)]


def test_messages_without_a_link_are_given_back(
    database_url: str, queue: SqlQueue
) -> None:
    """As after a crash between the two transactions of a run."""
    queue.publish(1)
    queue.take_one(queue.link())
    run(queue, "DELETE FROM qconsume_link")
    queue.link().keep_alive()
    assert count(database_url, "message WHERE owner IS NULL") == 1


def test_one_link_of_a_process_works_for_all(queue: SqlQueue) -> None:
    """A run that finds nothing writes nothing, and a second one does not wait."""
    queue.broker.declare()
    housekeeper = queue.broker._shared.housekeeper
    database = housekeeper._database
    writes: list[Step] = []
    is_writing, may_go_on = threading.Event(), threading.Event()

    class Watched:
        read = database.read

        def write(self, steps: list[Step]) -> list[StepResult]:
            writes.extend(steps)
            is_writing.set()
            may_go_on.wait(20)
            return database.write(steps)

    watched = housekeeping.Housekeeper(Watched(), queue.broker._shared.watcher)  # type: ignore[arg-type]
    watched.run()
    assert writes == []
    queue.publish(1, expires=600)
    run(queue, "UPDATE qconsume_message SET expires = 1")
    first = threading.Thread(target=watched.run)
    first.start()
    assert is_writing.wait(20)
    watched.run()
    assert len(writes) == 1
    may_go_on.set()
    first.join(20)
    assert [step.statement for step in writes] == [housekeeping.DELETE_EXPIRED]
