"""Our AMQP transport under kombu's event loop, as Celery's workers use it."""

from __future__ import annotations

import time

import pytest
from kombu import Connection
from kombu import Consumer
from kombu import Producer
from kombu import Queue
from kombu.asynchronous.hub import Hub
from kombu.transport import TRANSPORT_ALIASES

from flask_qconsume.brokers.rabbitmq.amqp import transport as amqp

BILLING = Queue("billing", routing_key="billing")


@pytest.fixture
def connection(rabbitmq_url):
    TRANSPORT_ALIASES["ours"] = f"{amqp.__name__}:Transport"
    with Connection(rabbitmq_url.replace("amqp:", "ours:")) as connection:
        yield connection
    del TRANSPORT_ALIASES["ours"]


def test_what_came_with_the_answer_to_consume_is_delivered(connection):
    """The socket is empty by then, so that it does not wake the loop."""
    producer = Producer(connection.default_channel)
    for number in range(3):
        producer.publish(number, routing_key="billing", declare=[BILLING])
    found, hub = [], Hub()

    def handle(body, message):
        found.append(body)
        message.ack()

    with Consumer(connection, [BILLING], callbacks=[handle], prefetch_count=9):
        # The answer comes after the deliveries, so all of them are in the buffer.
        connection.default_channel.queue_declare("billing", passive=True)
        connection.register_with_event_loop(hub)
        until = time.monotonic() + 10
        while len(found) < 3 and time.monotonic() < until:
            hub.run_once()
        hub.close()
    assert found == [0, 1, 2]


def test_a_connection_that_is_closed_leaves_the_loop(connection):
    hub = Hub()
    connection.connect()
    connection.register_with_event_loop(hub)
    assert len(hub.on_tick) == 1
    connection.close()
    hub.call_soon(lambda: None)
    hub.run_once()
    assert not hub.on_tick
    hub.close()
