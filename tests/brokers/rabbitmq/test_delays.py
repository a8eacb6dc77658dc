"""The wait queues: a message comes back when it is due, and none is lost."""

from __future__ import annotations

import time
import typing as t

import pytest

from flask_qconsume.broker import headers
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.brokers.rabbitmq import RabbitMQ
from flask_qconsume.brokers.rabbitmq.wait_queues import MAX_DELAY
from flask_qconsume.brokers.rabbitmq.wait_queues import WAIT_QUEUE_SECONDS
from flask_qconsume.brokers.rabbitmq.wait_queues import choose_retry_queue

from ...waiting import wait_for
from .rabbit import EXCHANGE
from .rabbit import QUEUE
from .rabbit import make_plan
from .rabbit import open_broker
from .rabbit import open_link
from .rabbit import publish_orders
from .rabbit import raw_channel
from .rabbit import take


@pytest.fixture(params=["quorum", "classic"])
def broker(request: pytest.FixtureRequest, rabbitmq_url: str) -> t.Iterator[RabbitMQ]:
    kind = request.param
    with open_broker(rabbitmq_url, make_plan(type=kind), queue_type=kind) as made:
        yield made


def build_retry(delivery: Delivery, delay: float) -> Forward:
    attempt = delivery.message.attempt + 1
    changed = headers.make_retry_headers(delivery.message, attempt)
    return Forward(delivery, Lane.MAIN, changed, delay=delay)


def forward_retries(link: Link, *delays: float) -> None:
    deliveries = take(link, len(delays))
    forwards = [build_retry(d, s) for d, s in zip(deliveries, delays, strict=True)]
    assert link.forward(forwards) == [None] * len(delays)


def test_a_delayed_publish_arrives_at_every_queue_that_is_bound_by_then(
    rabbitmq_url: str,
) -> None:
    plans = make_plan(QUEUE, "order.*"), make_plan("audit", "#")
    with open_broker(rabbitmq_url, *plans) as broker:
        began = time.monotonic()
        publish_orders(broker, 2, delay=1.0)
        assert broker.depth(QUEUE) == 0
        with open_link(broker) as link:
            message = take(link, 2)[0].message
        assert 0.9 < time.monotonic() - began < 2.5
        assert message.routing_key == "order.created"
        assert message.attempt == 1
        wait_for(lambda: broker.depth("audit") == 2)


def test_a_delayed_publish_to_a_queue_goes_there(broker: RabbitMQ) -> None:
    broker.declare()
    publish_orders(broker, 1, delay=0.2, exchange="", routing_key=QUEUE)
    wait_for(lambda: broker.depth(QUEUE) == 1)


def test_a_wait_queue_that_was_deleted_comes_back(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    publish_orders(broker, 3)
    with open_link(broker) as link:
        first, second, third = take(link, 3)
        assert link.forward([build_retry(first, 0.1)]) == [None]
        with raw_channel(rabbitmq_url) as channel:
            channel.queue_delete(f"{EXCHANGE}.wait.1")
        assert link.forward([build_retry(second, 0.1)]) == [None]
        with raw_channel(rabbitmq_url) as channel:
            channel.exchange_delete(f"{EXCHANGE}.wait.1")
        assert link.forward([build_retry(third, 0.1)]) == [None]
        assert len(take(link, 2)) >= 2


def test_a_retry_later_than_the_longest_is_put_off_that_long(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    publish_orders(broker)
    with open_link(broker) as link:
        forward_retries(link, 10 * MAX_DELAY)
    assert broker.depth(f"{EXCHANGE}.wait.{WAIT_QUEUE_SECONDS[-1]}") == 1


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [(0.01, 1), (1, 1), (1.01, 2), (900, 1024), (500_000, 524_288), (604_800, 604_800)],
)
def test_a_delay_takes_the_first_step_that_is_long_enough(
    delay: float, seconds: int
) -> None:
    assert choose_retry_queue("shop", delay).name == f"shop.wait.{seconds}"
