"""The status of queues every few seconds, on a real RabbitMQ."""

from __future__ import annotations

import pytest

from flask_qconsume.brokers.rabbitmq import RabbitMQ as RabbitBroker
from flask_qconsume.errors import BrokerUnavailable

from ...servers import RabbitMQ
from ...servers import Vhost
from ...waiting import wait_for
from .rabbit import make_order
from .rabbit import open_broker

TIMEOUT = 10.0


def count_dead(broker: RabbitBroker) -> int | None:
    return broker.read_backlog(broker.topology.queues, TIMEOUT)[0].dead_letters


def dead_letter(broker: RabbitBroker, count: int) -> None:
    """Put messages into the queue of dead letters."""
    plan = broker.topology.queues[0]
    broker.declare()
    messages = [make_order(routing_key=plan.dead, exchange="") for _ in range(count)]
    assert broker.publish(messages, TIMEOUT) == [None] * count
    wait_for(lambda: broker.depth(plan.dead) == count)


def list_connections(vhost: Vhost) -> list[str]:
    rows = vhost.server.ctl_json("list_connections", "vhost", "pid")
    return sorted(row["pid"] for row in rows if row["vhost"] == vhost.name)


def test_one_connection_stays_open_for_all_readings(rabbitmq_vhost: Vhost) -> None:
    with open_broker(rabbitmq_vhost.url) as broker:
        broker.declare()
        assert count_dead(broker) == 0
        first = list_connections(rabbitmq_vhost)
        assert len(first) == 1
        assert count_dead(broker) == 0
        assert list_connections(rabbitmq_vhost) == first
        rabbitmq_vhost.close_connections()
        # The reading that finds the connection lost opens a new one.
        assert count_dead(broker) == 0
        assert list_connections(rabbitmq_vhost) != first
    wait_for(lambda: list_connections(rabbitmq_vhost) == [])


def test_dead_letters_that_another_command_holds_are_unknown(
    rabbitmq_vhost: Vhost,
) -> None:
    with open_broker(rabbitmq_vhost.url) as broker:
        dead_letter(broker, 3)
        assert count_dead(broker) == 3
        looking = iter(broker.dead_letters(broker.topology.queues[0]))
        next(looking)
        assert count_dead(broker) is None
        assert len(list(looking)) == 2
        wait_for(lambda: count_dead(broker) == 3)


def test_without_permission_for_the_lock_dead_letters_are_unknown(
    rabbitmq_vhost: Vhost,
) -> None:
    with open_broker(rabbitmq_vhost.url) as broker:
        dead_letter(broker, 1)
        with rabbitmq_vhost.permissions("^$"):
            assert count_dead(broker) is None
        assert count_dead(broker) is None
        assert broker.read_backlog(broker.topology.queues, TIMEOUT)[0].waiting == 0


def test_a_reading_during_an_outage_is_an_error(own_rabbitmq: RabbitMQ) -> None:
    with own_rabbitmq.vhost() as vhost, open_broker(vhost.url) as broker:
        broker.declare()
        assert count_dead(broker) == 0
        own_rabbitmq.kill()
        with pytest.raises(BrokerUnavailable):
            count_dead(broker)
        own_rabbitmq.start()
        assert count_dead(broker) == 0
