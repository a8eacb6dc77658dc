"""A handler that runs while its link is lost."""

from __future__ import annotations

import typing as t

import gevent
import pytest
from gevent.event import Event

from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.running.worker import Worker

from ...running.conftest import AppWithWorkers
from ...waiting import wait_for
from .tools import SqlQueue
from .tools import dead_letter
from .tools import end_lease
from .tools import look
from .tools import retry


@pytest.fixture
def database_app(database_url: str) -> t.Iterator[AppWithWorkers]:
    made = AppWithWorkers(QCONSUME_BROKER_URL=database_url)
    yield made
    for worker in made.workers:
        worker.stop(timeout=5)
    made.consumers.close()


def lose_link(worker: Worker) -> None:
    """Fail the link of the first queue, and wait for the next one."""
    connection = worker.subscriptions[0].connection
    reader = connection.reader
    assert reader is not None
    connection.lose(reader.link, BrokerUnavailable("cut off"))
    wait_for(lambda: connection.connected and connection.reader is not reader, 20)


@pytest.mark.parametrize("ordering", ["none", "key"])
def test_a_message_in_hand_is_not_begun_again(
    database_app: AppWithWorkers, ordering: t.Literal["none", "key"]
) -> None:
    begun: list[t.Any] = []
    go = Event()

    @database_app.qconsume.consumer("billing", ordering=ordering, concurrency=5)
    def bill(order: t.Any) -> None:
        begun.append(order)
        go.wait()

    worker = database_app.start()
    database_app.publish("billing", 1, key="a")
    wait_for(lambda: begun == [1], 20)
    lose_link(worker)
    connection = worker.subscriptions[0].connection
    # The row was given back, and is claimed by the new link.
    wait_for(lambda: len(connection.unsettled) == 1, 20)
    gevent.sleep(0)
    assert begun == [1]
    go.set()
    wait_for(lambda: not connection.unsettled and worker.busy == 0, 20)
    database_app.publish("billing", 2, key="a")
    wait_for(lambda: 2 in begun, 20)
    assert begun == [1, 2]


def test_a_message_that_another_worker_has_is_let_go(
    queue: SqlQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """This process was halted for longer than its lease."""
    link, other = queue.link(), queue.link()
    queue.publish(1, 2, 3)
    deliveries = look(link)
    end_lease(link)
    other.keep_alive()
    assert len(look(other)) == 3

    link.ack(deliveries[:1])
    assert (
        link.forward([retry(deliveries[1]), dead_letter(deliveries[2])]) == [None] * 2
    )
    assert "Lost 1 message of 'billing'" in caplog.text
    assert "Lost 2 messages of 'billing'" in caplog.text
    status = queue.broker.read_statuses([queue.plan])[0]
    assert (status.in_hand, status.waiting, status.dead_letters) == (3, 0, 0)
