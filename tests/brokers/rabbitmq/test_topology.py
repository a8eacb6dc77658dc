"""Declaring: idempotent, checked, and never changing queues of other programs."""

from __future__ import annotations

import typing as t

import gevent
import pytest
from kombu import Exchange
from kombu import Queue

from flask_qconsume.broker.topology import Binding
from flask_qconsume.brokers.rabbitmq import RabbitMQ
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import TopologyMismatch
from flask_qconsume.errors import Unroutable

from ...servers import Vhost
from .rabbit import EXCHANGE
from .rabbit import QUEUE
from .rabbit import make_order
from .rabbit import make_plan
from .rabbit import open_broker
from .rabbit import open_link
from .rabbit import publish_orders
from .rabbit import raw_channel
from .rabbit import take_one


@pytest.fixture
def broker(rabbitmq_url: str) -> t.Iterator[RabbitMQ]:
    with open_broker(rabbitmq_url) as made:
        yield made


def test_declaring_twice_changes_nothing(
    rabbitmq_vhost: Vhost, broker: RabbitMQ
) -> None:
    broker.declare()
    broker.declare()
    queues = rabbitmq_vhost.queues()
    names = {QUEUE, f"{QUEUE}.suspects", f"{QUEUE}.dead", f"{EXCHANGE}.bindings"}
    assert set(queues) == names
    assert {queue["type"] for queue in queues.values()} == {"quorum"}


def test_classic_queues_are_declared_where_they_are_wanted(
    rabbitmq_vhost: Vhost,
) -> None:
    plan = make_plan(type="classic")
    with open_broker(rabbitmq_vhost.url, plan, queue_type="classic") as broker:
        broker.declare()
    queues = rabbitmq_vhost.queues()
    assert {queues[n]["type"] for n in (QUEUE, plan.suspects, plan.dead)} == {"classic"}


@pytest.mark.parametrize("lane", ["", ".suspects", ".dead"])
def test_a_queue_with_other_arguments_is_told(
    rabbitmq_url: str, broker: RabbitMQ, lane: str
) -> None:
    with raw_channel(rabbitmq_url) as channel:
        channel.queue_declare(QUEUE + lane, durable=True, auto_delete=False)
    with pytest.raises(TopologyMismatch) as caught:
        broker.declare()
    assert f"'{QUEUE}{lane}'" in str(caught.value)
    assert "x-queue-type" in str(caught.value)
    assert "QCONSUME_QUEUE_TYPE" in str(caught.value)
    with pytest.raises(TopologyMismatch), open_link(broker):
        pass
    (error,) = broker.publish([make_order()], 20)
    assert isinstance(error, TopologyMismatch)


def test_an_exchange_of_another_type_is_told(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    with raw_channel(rabbitmq_url) as channel:
        channel.exchange_declare(EXCHANGE, "direct", auto_delete=False)
    with pytest.raises(TopologyMismatch, match=f"exchange '{EXCHANGE}'"):
        broker.declare()


def test_a_missing_permission_is_told(rabbitmq_vhost: Vhost, broker: RabbitMQ) -> None:
    rabbitmq_vhost.server.permit(rabbitmq_vhost.name, configure="^nothing$")
    with pytest.raises(BrokerRefused, match="permissions"):
        broker.declare()
    with pytest.raises(BrokerRefused, match="permissions"), open_link(broker):
        pass


def test_passive_tells_what_is_missing_and_creates_nothing(
    rabbitmq_vhost: Vhost, broker: RabbitMQ
) -> None:
    with open_broker(rabbitmq_vhost.url, declare="passive") as passive:
        with pytest.raises(TopologyMismatch, match="flask qconsume declare"):
            passive.declare()
        (error,) = passive.publish([make_order()], 20)
        assert isinstance(error, TopologyMismatch)
        with pytest.raises(TopologyMismatch), open_link(passive):
            pass
        assert rabbitmq_vhost.queues() == {}
        broker.declare()
        passive.declare()
        publish_orders(passive)
        with open_link(passive) as link:
            take_one(link)


def test_passive_uses_wait_queues_that_were_declared_before(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    broker.declare()
    with open_broker(rabbitmq_url, declare="passive") as passive:
        (error,) = passive.publish([make_order(delay=0.1)], 20)
        assert isinstance(error, TopologyMismatch)
        broker.declare_delays()
        publish_orders(passive, delay=0.1)


def test_never_declares_nothing(rabbitmq_vhost: Vhost) -> None:
    with open_broker(rabbitmq_vhost.url, declare="never") as never:
        never.declare()
        (error,) = never.publish([make_order()], 20)
        assert isinstance(error, Unroutable)
        (error,) = never.publish([make_order(delay=1)], 20)
        assert isinstance(error, Unroutable)
        with pytest.raises(TopologyMismatch, match=f"'{QUEUE}'"), open_link(never):
            pass
    assert rabbitmq_vhost.queues() == {}


def test_a_given_queue_that_is_not_to_be_declared_is_left_alone(
    rabbitmq_vhost: Vhost,
) -> None:
    given = Queue("theirs", Exchange("theirs"), no_declare=True)
    with open_broker(rabbitmq_vhost.url, make_plan("theirs", given=given)) as broker:
        broker.declare()
        assert "theirs" not in rabbitmq_vhost.queues()
        with raw_channel(rabbitmq_vhost.url) as channel:
            channel.queue_declare("theirs", durable=False, auto_delete=False)
        assert broker.publish([make_order(1, "theirs", exchange="")], 20) == [None]
        with open_link(broker) as link:
            link.ack([take_one(link)])


def test_a_given_queue_that_differs_is_told_and_not_changed(
    rabbitmq_url: str,
) -> None:
    with raw_channel(rabbitmq_url) as channel:
        channel.queue_declare("theirs", durable=True, auto_delete=False)
    given = Queue("theirs", queue_arguments={"x-max-length": 3})
    plan = make_plan("theirs", given=given)
    with (
        open_broker(rabbitmq_url, plan) as broker,
        pytest.raises(TopologyMismatch) as error,
    ):
        broker.declare()
    assert "x-max-length" in str(error.value)


def test_an_exclusive_queue_is_its_consumers_own(rabbitmq_url: str) -> None:
    given = Queue("mine", exclusive=True)
    plan = make_plan("mine", given=given)
    with open_broker(rabbitmq_url, plan) as broker, open_link(broker) as link:
        assert broker.publish([make_order(1, "mine", exchange="")], 20) == [None]
        link.ack([take_one(link)])


def test_bindings_that_the_code_no_longer_has_are_known_and_removed(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    broker.declare()
    assert broker.stale_bindings() == []
    with open_broker(rabbitmq_url, make_plan(QUEUE, "order.paid")) as later:
        later.declare()
        stale = [Binding(QUEUE, EXCHANGE, "order.*")]
        assert later.stale_bindings() == stale
        assert broker.stale_bindings() == [Binding(QUEUE, EXCHANGE, "order.paid")]
        publish_orders(later)
        later.unbind(stale)
        assert later.stale_bindings() == []
        (error,) = later.publish([make_order()], 20)
        assert isinstance(error, Unroutable)
        later.unbind(stale)


def test_bindings_declared_by_many_at_once_are_all_remembered(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    def declare(number: int) -> None:
        with open_broker(rabbitmq_url, make_plan(QUEUE, f"key.{number}")) as one:
            one.declare()

    gevent.joinall([gevent.spawn(declare, n) for n in range(8)], raise_error=True)
    broker.declare()
    keys = {binding.routing_key for binding in broker.stale_bindings()}
    assert keys == {f"key.{number}" for number in range(8)}
    assert broker.depth(f"{EXCHANGE}.bindings") == 1


def test_nonsense_in_the_record_of_bindings_counts_as_nothing(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    broker.declare()
    nonsense = make_order(1, f"{EXCHANGE}.bindings", exchange="")
    assert broker.publish([nonsense], 20) == [None]
    broker.declare()
    assert broker.stale_bindings() == []
