"""The reader reads, lets handlers begin between two reads, and ends with its link."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import gevent
from gevent.event import Event

from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.message import Message
from flask_qconsume.running.greenlets import ProtectedGreenlet
from flask_qconsume.running.reader import Reader

from ..waiting import wait_for
from .conftest import AppWithWorkers

PLAN = QueuePlan("billing", consumer="billing", type="", bindings=())


class Pushed(Link):
    """A link that pushes three messages, one at a time, and is closed then."""

    pushes = True

    def __init__(self, happened: list[str]) -> None:
        super().__init__(PLAN, Lane.MAIN)
        self._happened = happened

    def read(self, room: int) -> Sequence[Delivery]:
        self._happened.append("read")
        self.closed = self._happened.count("read") == 3
        return [Delivery(self, 1, Message(b"1", "billing"))]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        raise AssertionError("the reader does not settle")

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        raise AssertionError("the reader does not settle")

    def pause(self) -> None:
        return

    def close(self) -> None:
        self.closed = True


def test_handlers_begin_before_the_next_read() -> None:
    happened: list[str] = []

    def receive(deliveries: Sequence[Delivery]) -> None:
        gevent.spawn(happened.append, "begun")

    Reader(Pushed(happened), 100, receive).run()
    assert happened == ["read", "begun"] * 3


def test_a_reader_that_waits_for_room_ends_with_its_link(
    worker_app: AppWithWorkers,
) -> None:
    """Its greenlet used to stay forever, and a stop waited five seconds for it."""
    go = Event()

    @worker_app.qconsume.consumer("billing", concurrency=1, prefetch=1)
    def bill(order: None) -> None:
        go.wait()

    worker = worker_app.start()
    worker_app.publish("billing")
    wait_for(lambda: worker.busy == 1)
    reading = [each for each in gc.get_objects() if _reads(each)]
    worker.stop(timeout=0)

    assert [each.dead for each in reading] == [True]


def _reads(each: object) -> bool:
    return (
        isinstance(each, ProtectedGreenlet) and not each.dead and "_read" in str(each)
    )
