"""A broker for simulated outages: the memory broker, with links that can be cut.

Unsettled messages of a cut connection come again marked as redelivered, as on RabbitMQ.
"""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Sequence

from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.brokers.memory import Memory
from flask_qconsume.brokers.memory.link import MemoryLink
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.running.suspects import forward_to_suspects

from .conftest import AppWithWorkers


class CutLink(MemoryLink):
    """A link with a connection that :meth:`cut` closes."""

    broker: Outage

    def cut(self) -> None:
        """Close the connection; its unsettled messages come again, marked."""
        with self._lock:
            self.closed = True
            entries = list(self._unsettled.values())
            self._unsettled.clear()
        self._queue.put(
            entry._replace(message=dataclasses.replace(entry.message, redelivered=True))
            for entry in entries
        )

    def read(self, room: int) -> Sequence[Delivery]:
        self._check()
        found = super().read(room)
        self._check()
        return found

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        assert not any(delivery.stale for delivery in deliveries)
        super().ack(deliveries)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        self._check()
        if self.broker.is_full:
            return [BrokerUnavailable("the disk is full")] * len(forwards)
        return super().forward(forwards)

    def _check(self) -> None:
        if self.closed:
            raise BrokerUnavailable("the connection was cut")


class Outage(Memory):
    """The memory broker, with outages from :meth:`down` to :meth:`up`."""

    capabilities = dataclasses.replace(Memory.capabilities, survives_worker_death=True)

    def __init__(self, *arguments: t.Any) -> None:
        super().__init__(*arguments)
        self.links: list[CutLink] = []
        self.is_down = False
        #: Whether the broker refuses forwards.
        self.is_full = False
        self.refused = 0
        #: Number of calls of :meth:`is_reachable` during outages.
        self.probed = 0

    def is_reachable(self) -> bool:
        self.probed += self.is_down
        return not self.is_down

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        if self.is_down:
            self.refused += 1
            raise BrokerUnavailable("no server listens")
        self._declare_once()
        link = CutLink(self.store, plan, lane)
        link.broker = self
        self.links.append(link)
        return link

    def down(self) -> None:
        """Cut all connections and accept no new ones."""
        self.is_down = True
        for link in self.links:
            if not link.closed:
                link.cut()

    def up(self) -> None:
        """Accept connections again."""
        self.is_down = False


def play_outages(worker_app: AppWithWorkers) -> Outage:
    """Replace an app's broker by this one."""
    consumers = worker_app.consumers
    broker = Outage(consumers.settings, consumers.topology)
    consumers._broker.made = broker
    return broker


def publish_killer(worker_app: AppWithWorkers, queue: str) -> str:
    """Publish a message that has killed as many processes as it may; return its id."""
    broker = play_outages(worker_app)
    plan = worker_app.consumers.topology.queue(queue)
    published = worker_app.publish(queue, "killer")
    for lane in (Lane.MAIN, Lane.SUSPECTS):
        link: t.Any = broker.connect(plan, lane, 1)
        (delivery,) = link.read(1)
        if lane is Lane.MAIN:
            link.forward([forward_to_suspects(delivery, deaths=1)])
            link.close()
        else:
            link.cut()
    return published
