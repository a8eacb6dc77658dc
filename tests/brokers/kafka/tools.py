"""A broker on a throwaway Kafka with some queues, and helpers to use it."""

from __future__ import annotations

import contextlib
import typing as t
import uuid
from collections.abc import Iterator

from flask_qconsume.broker.dead_letters import DeadLetter
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import Binding
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.message import Outgoing
from flask_qconsume.settings import Settings

from ...waiting import wait_for

EXCHANGE = "shop"

#: Two partitions are enough to tell, and members that are gone are found gone soon.
QUICKLY: dict[str, t.Any] = {
    "partitions": 2,
    "kafka_consumer_config": {
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 200,
        "topic.metadata.refresh.interval.ms": 500,
    },
}


def plan(name: str, *keys: str, given: t.Any = None, **more: t.Any) -> QueuePlan:
    """Return the plan of a queue for messages published under its name, or ``keys``."""
    bindings = tuple(Binding(name, EXCHANGE, key) for key in keys or (name,))
    return QueuePlan(name, name, "quorum", bindings, given, **more)


def outgoing(topic: str, body: bytes = b"{}", **more: t.Any) -> Outgoing:
    """Return a message for a topic, with an id."""
    values = {"exchange": EXCHANGE, "id": str(uuid.uuid4()), **more}
    return Outgoing(routing_key=topic, body=body, **values)


class LinkedBroker:
    """A broker with its links, closed together."""

    def __init__(self, url: str, plans: t.Sequence[QueuePlan], **config: t.Any) -> None:
        options = {**QUICKLY, **config.pop("transport_options", {})}
        keys = {"BROKER_URL": url, "TRANSPORT_OPTIONS": options, **config}
        settings = {f"QCONSUME_{name.upper()}": value for name, value in keys.items()}
        topology = Topology(EXCHANGE, tuple(plans))
        self.plan = plans[0]
        self.broker = open_broker(Settings.from_config(settings), topology)
        self._links: list[Link] = []

    def publish(self, *messages: Outgoing) -> None:
        """Publish, and insist that all of it is confirmed."""
        found = self.broker.publish(messages, 10.0)
        assert found == [None] * len(messages), found

    def link(self, lane: Lane = Lane.MAIN, prefetch: int = 20) -> Link:
        """Open a link to the first queue."""
        self._links.append(self.broker.connect(self.plan, lane, prefetch))
        return self._links[-1]

    def letters(self) -> list[DeadLetter]:
        """Return the dead letters of the first queue."""
        return list(self.broker.dead_letters(self.plan))

    def dead_letter(self, link: Link, delivery: Delivery, **headers: t.Any) -> None:
        """Make a dead letter of a delivery."""
        named = {f"x-qconsume-{name}": value for name, value in headers.items()}
        all_of_them = {**delivery.message.headers, **named}
        forward = Forward(delivery, Lane.DEAD, all_of_them, expires=60.0)
        assert link.forward([forward]) == [None]

    def close(self) -> None:
        for link in self._links:
            link.close()
        self.broker.close()


@contextlib.contextmanager
def linked_broker(
    url: str, *plans: QueuePlan, **config: t.Any
) -> Iterator[LinkedBroker]:
    """Open a broker for the length of a ``with`` block."""
    linked = LinkedBroker(url, plans, **config)
    try:
        yield linked
    finally:
        linked.close()


def read(link: Link, count: int, timeout: float = 20.0) -> list[Delivery]:
    """Read this many deliveries."""
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(link.read(count - len(found)))
        return len(found) >= count

    wait_for(enough, timeout, message=lambda: f"{len(found)} of {count} came")
    return found
