"""The reader: what it does, and what it lets others do before."""

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
from .conftest import Bench

PLAN = QueuePlan("billing", consumer="billing", type="", bindings=())


class Pushed(Link):
    """Has three messages, one at a time, and is closed then."""

    pushes = True

    def __init__(self, happened: list[str]) -> None:
        super().__init__(PLAN, Lane.MAIN)
        self._happened = happened

    def read(self, room: int) -> Sequence[Delivery]:
        self._happened.append("read")
        self.closed = self._happened.count("read") == 3
        return [Delivery(self, 1, Message(b"1", "billing"))]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        raise AssertionError("nobody settles here")

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        raise AssertionError("nobody settles here")

    def pause(self) -> None:
        return

    def close(self) -> None:
        self.closed = True


def test_what_was_pushed_is_begun_before_more_is_looked_for() -> None:
    happened: list[str] = []

    def receive(deliveries: Sequence[Delivery]) -> None:
        gevent.spawn(happened.append, "begun")

    Reader(Pushed(happened), 100, receive).run()
    assert happened == ["read", "begun"] * 3


def test_a_reader_that_waits_for_room_ends_with_its_link(bench: Bench) -> None:
    """Its greenlet stayed for ever, and a stop waited five seconds for it."""
    go = Event()

    @bench.qconsume.consumer("billing", concurrency=1, prefetch=1)
    def bill(order: None) -> None:
        go.wait()

    worker = bench.start()
    bench.publish("billing")
    wait_for(lambda: worker.busy == 1)
    reading = [each for each in gc.get_objects() if _reads(each)]
    worker.stop(timeout=0)

    assert [each.dead for each in reading] == [True]


def _reads(each: object) -> bool:
    return (
        isinstance(each, ProtectedGreenlet) and not each.dead and "_read" in str(each)
    )
