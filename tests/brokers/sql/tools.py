"""A broker in a database with one queue, and short words to use it by."""

from __future__ import annotations

import time
import typing as t

import sqlalchemy as sa

from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.compose import compose
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import Binding
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.brokers.sql.broker import SqlBroker
from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.link import SqlLink
from flask_qconsume.brokers.sql.schema import LINK
from flask_qconsume.brokers.sql.schema import L
from flask_qconsume.message import Message
from flask_qconsume.settings import Settings

from ...waiting import wait_for

EXCHANGE = "shop"
QUEUE = "billing"


class SqlQueue:
    """A broker with the queue ``billing``, and the links to it.

    :param ordering: The ordering of the queue's consumer.
    :param config: Settings without their prefix, in lower case.
    """

    def __init__(self, url: str, *, ordering: str = "none", **config: t.Any) -> None:
        keys = {f"QCONSUME_{name.upper()}": value for name, value in config.items()}
        self.settings = Settings.from_config({"QCONSUME_BROKER_URL": url, **keys})
        self.plan = QueuePlan(
            name=QUEUE,
            consumer=QUEUE,
            type="classic",
            bindings=(Binding(QUEUE, EXCHANGE, QUEUE),),
            ordering=ordering,
        )
        broker = open_broker(self.settings, Topology(EXCHANGE, (self.plan,)))
        assert isinstance(broker, SqlBroker)
        self.broker = broker
        self._links: list[SqlLink] = []

    def publish(self, *bodies: t.Any, **options: t.Any) -> None:
        """Publish messages, and assert that each is confirmed."""
        messages = [compose(EXCHANGE, QUEUE, body, **options) for body in bodies]
        assert self.broker.publish(messages, 20) == [None] * len(messages)

    def link(self, lane: Lane = Lane.MAIN) -> SqlLink:
        """Open a link of the queue."""
        link = self.broker.connect(self.plan, lane, 100)
        assert isinstance(link, SqlLink)
        self._links.append(link)
        return link

    def take(self, link: SqlLink, count: int, timeout: float = 20.0) -> list[Delivery]:
        """Read until there are ``count`` deliveries."""
        found: list[Delivery] = []
        deadline = time.monotonic() + timeout
        while len(found) < count:
            assert time.monotonic() < deadline, f"only {bodies(found)} came"
            found += link.read(count - len(found))
        return found

    def take_one(self, link: SqlLink) -> Delivery:
        return self.take(link, 1)[0]

    def await_depth(self, depth: int) -> None:
        wait_for(lambda: self.broker.depth(QUEUE) == depth, 20)

    def close(self) -> None:
        for link in self._links:
            link.close()
        self.broker.close()


def bodies(deliveries: t.Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.raw for delivery in deliveries]


def look(link: SqlLink, room: int = 10) -> list[Delivery]:
    """Take what is ready now, without waiting."""
    return link._claim(room)


def run(queue: SqlQueue, statement: str) -> None:
    """Execute a statement as another program could."""
    queue.broker._shared.database.write([Step(sa.text(statement))])


def execute(url: str, statement: str) -> list[tuple[t.Any, ...]]:
    """Execute a statement on a connection of its own; return the rows, if any."""
    url = url.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement)
        return [tuple(row) for row in result] if result.returns_rows else []


def end_lease(link: SqlLink) -> None:
    """Let a link's lease end, as that of a killed process does after some time."""
    ended = sa.update(LINK).where(L.id == link._number).values(until=0.0)
    link._shared.database.write([Step(ended)])


def retry(delivery: Delivery, delay: float = 0.0) -> Forward:
    """The forward of a delivery as its next attempt."""
    message: Message = delivery.message
    headers = own_headers.make_retry_headers(message, message.attempt + 1)
    return Forward(delivery, Lane.MAIN, headers, delay=delay)


def dead_letter(delivery: Delivery, reason: str = "bad") -> Forward:
    """The forward of a delivery to the dead letters."""
    headers = own_headers.make_dead_letter_headers(
        delivery.message, QUEUE, QUEUE, reason, None, time.time()
    )
    return Forward(delivery, Lane.DEAD, headers, expires=600.0)
