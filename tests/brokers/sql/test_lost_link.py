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
