"""Helpers of RabbitMQ's tests: broker objects, links, messages."""

from __future__ import annotations

import contextlib
import typing as t

import amqp
import gevent

from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import Binding
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.broker.topology import Topology
from flask_qconsume.brokers.rabbitmq import RabbitMQ
from flask_qconsume.message import Outgoing
from flask_qconsume.settings import Settings

from ...servers import Vhost

EXCHANGE = "shop"
QUEUE = "billing"


def make_plan(
    name: str = QUEUE,
    *keys: str,
    type: str = "quorum",
    given: t.Any = None,
) -> QueuePlan:
    bindings = tuple(Binding(name, EXCHANGE, key) for key in keys or ("order.*",))
    return QueuePlan(name, name, type, () if given else bindings, given)


def make_broker(url: str, *plans: QueuePlan, **config: t.Any) -> RabbitMQ:
    """Return a broker object, which the caller closes; of one queue by default."""
    keys = {f"QCONSUME_{key.upper()}": value for key, value in config.items()}
    settings = Settings.from_config(
        {"QCONSUME_BROKER_URL": url, "QCONSUME_EXCHANGE": EXCHANGE, **keys}
    )
    return RabbitMQ(settings, Topology(EXCHANGE, plans or (make_plan(),)))


@contextlib.contextmanager
def open_broker(url: str, *plans: QueuePlan, **config: t.Any) -> t.Iterator[RabbitMQ]:
    """A broker object for the length of a block."""
    broker = make_broker(url, *plans, **config)
    try:
        yield broker
    finally:
        broker.close()


@contextlib.contextmanager
def open_link(
    broker: RabbitMQ, lane: Lane = Lane.MAIN, *, prefetch: int = 100
) -> t.Iterator[Link]:
    link = broker.connect(broker.topology.queues[0], lane, prefetch)
    try:
        yield link
    finally:
        link.close()


def make_order(
    number: int = 1, routing_key: str = "order.created", **rest: t.Any
) -> Outgoing:
    """Return a message to the app's exchange."""
    options: dict[str, t.Any] = {"exchange": EXCHANGE, "id": f"order-{number}", **rest}
    return Outgoing(routing_key, str(number).encode(), **options)


def publish_orders(broker: RabbitMQ, count: int = 1, **rest: t.Any) -> None:
    """Publish orders 0, 1, 2, …; fail unless all are confirmed."""
    messages = [make_order(number, **rest) for number in range(count)]
    errors = broker.publish(messages, timeout=30)
    assert errors == [None] * count


def take(link: Link, count: int = 1, *, timeout: float = 20.0) -> list[Delivery]:
    """Read at least ``count`` deliveries."""
    found: list[Delivery] = []
    with gevent.Timeout(timeout, AssertionError(f"no {count} messages came")):
        while len(found) < count:
            found.extend(link.read(count))
    return found


def take_one(link: Link) -> Delivery:
    (delivery,) = take(link)
    return delivery


@contextlib.contextmanager
def raw_channel(url: str) -> t.Iterator[t.Any]:
    """A channel of plain py-amqp, in confirm mode."""
    host, _, vhost = url.rpartition("@")[2].partition("/")
    with amqp.Connection(host, virtual_host=vhost, confirm_publish=True) as connection:
        yield connection.channel()


@contextlib.contextmanager
def suspend_queue(vhost: Vhost, queue: str) -> t.Iterator[None]:
    """Suspend the process of a quorum queue for the length of a block."""
    name = f'rabbit_misc:r(<<"{vhost.name}">>, queue, <<"{queue}">>)'
    leader = f"amqqueue:get_pid(element(2, rabbit_amqqueue:lookup({name})))"
    vhost.server.evaluate(f"sys:suspend({leader})")
    try:
        yield
    finally:
        vhost.server.evaluate(f"sys:resume({leader})")
