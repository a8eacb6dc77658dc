"""kombu on the other side: its producers, its consumers, its restoring."""

from __future__ import annotations

import contextlib
import time
import typing as t

import kombu
import pytest

from flask_qconsume.broker.link import Lane

from .tools import bodies
from .tools import forward
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read


@contextlib.contextmanager
def kombu_connection(url: str, **options: t.Any) -> t.Iterator[kombu.Connection]:
    with kombu.Connection(url, transport_options=options) as connection:
        yield connection


def get_message(connection: kombu.Connection, name: str) -> kombu.Message:
    """One message out of a queue, by kombu's own consumer; not acknowledged."""
    got: list[kombu.Message] = []
    channel = connection.channel()
    consumer = kombu.Consumer(channel, [kombu.Queue(name, channel=channel)])
    consumer.register_callback(lambda body, message: got.append(message))
    with consumer:
        while not got:
            connection.drain_events(timeout=10)
    return got[0]


@pytest.mark.parametrize("prefix", ["", "stage:"])
def test_what_kombu_publishes_is_read(redis_url, prefix):
    options = {"global_keyprefix": prefix}
    queue = plan("billing", "order.*")
    with linked_broker(redis_url, queue, transport_options=options) as linked:
        linked.broker.declare()
        with kombu_connection(redis_url, **options) as connection:
            exchange = kombu.Exchange("shop", "topic")
            connection.Producer(exchange=exchange).publish(
                {"id": 1},
                routing_key="order.created",
                headers={"x-tenant": "a"},
                priority=6,
                correlation_id="c",
            )
        message = read(linked.link(), 1)[0].message
    assert message.raw == b'{"id": 1}'
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.headers == {"x-tenant": "a"}
    assert (message.exchange, message.routing_key) == ("shop", "order.created")
    assert message.properties["correlation_id"] == "c"
    assert (message.priority, message.id, message.redelivered) == (3, None, False)


def test_kombu_publishes_to_what_we_declared_and_we_to_what_kombu_declared(redis_url):
    queues = [plan("billing", "order.*"), plan("audit", "#"), plan("mail", "mail.#")]
    with (
        linked_broker(redis_url, *queues) as linked,
        kombu_connection(redis_url) as connection,
    ):
        linked.broker.declare()
        exchange = kombu.Exchange("shop", "topic")
        theirs = kombu.Queue("theirs", exchange, routing_key="order.#")
        theirs(connection.channel()).declare()
        producer = connection.Producer(exchange=exchange)
        producer.publish({}, routing_key="order.created")
        names = ["billing", "audit", "mail", "theirs"]
        assert [linked.depth(name) for name in names] == [1, 1, 0, 1]
        linked.publish(outgoing(routing_key="order.created"))
        assert [linked.depth(name) for name in names] == [2, 2, 0, 2]
        # kombu's own matcher does not see that "#" may stand for no word; ours does.
        linked.publish(outgoing(routing_key="order"))
        assert [linked.depth(name) for name in names] == [2, 3, 0, 3]


def test_kombus_simple_queue_and_ours_understand_each_other(redis_url):
    with linked_broker(redis_url) as linked, kombu_connection(redis_url) as connection:
        simple = connection.SimpleQueue("billing")
        simple.put({"id": 1})
        assert bodies(read(linked.link(), 1)) == [b'{"id": 1}']
        linked.publish(outgoing(b'{"id": 2}', content_type="application/json"))
        message = simple.get(timeout=10)
        assert message.payload == {"id": 2}
        message.ack()
        simple.close()


def test_what_we_publish_is_consumed_by_kombu(redis_url):
    with linked_broker(redis_url) as linked, kombu_connection(redis_url) as connection:
        linked.publish(
            outgoing(
                b'{"id": 1}',
                content_type="application/json",
                headers={"x-tenant": "a"},
                properties={"reply_to": "there"},
                priority=2,
            )
        )
        message = get_message(connection, "billing")
        assert message.payload == {"id": 1}
        assert message.headers["x-tenant"] == "a"
        assert message.properties["reply_to"] == "there"
        assert message.properties["priority"] == 7
        assert message.delivery_info == {"exchange": "shop", "routing_key": "billing"}
        message.ack()
        assert linked.keys() == set()


def test_what_we_forwarded_is_consumed_and_restored_by_kombu_to_that_queue(redis_url):
    both = [plan("billing", "order"), plan("mail", "order")]
    with (
        linked_broker(redis_url, *both) as linked,
        kombu_connection(redis_url) as connection,
    ):
        linked.publish(
            outgoing(b"{}", routing_key="order", content_type="application/json")
        )
        link = linked.link()
        forward(link, read(link, 1)[0], Lane.MAIN)
        message = get_message(connection, "billing")
        message.requeue()
        assert (linked.depth("billing"), linked.depth("mail")) == (1, 1)
        assert read(link, 1)[0].message.redelivered


@pytest.mark.parametrize("body", [b'{"id": 1}', b"x" * 100_000])
def test_kombu_restores_what_a_dead_worker_of_ours_held(redis_url, body):
    both = [plan("billing", "order"), plan("mail", "order")]
    with linked_broker(redis_url, *both) as linked:
        linked.publish(outgoing(body, routing_key="order", priority=3))
        link = linked.link()
        late = read(link, 1)
        with kombu_connection(redis_url, visibility_timeout=-10) as connection:
            connection.default_channel.qos.restore_visible(interval=1)
        assert (linked.depth("billing"), linked.depth("mail")) == (1, 1)
        # The late acknowledgement of the first one takes nothing away.
        link.ack(late)
        again = read(linked.link(), 1)[0]
        assert (again.message.raw, again.message.redelivered) == (body, True)
        assert again.message.priority == 3


@pytest.mark.parametrize(
    "element",
    [b"[1]", b"garbage", b"{", b"\xff", b'{"headers": null, "properties": {}}', b"{}"],
)
def test_kombu_does_not_stumble_over_foreign_messages_that_we_hold(redis_url, element):
    with linked_broker(redis_url) as linked:
        linked.client.lpush("billing", element)
        link = linked.link()
        read(link, 1)
        with kombu_connection(redis_url, visibility_timeout=-10) as connection:
            connection.default_channel.qos.restore_visible(interval=1)
        assert linked.client.hlen("unacked") == 1
        link.close()
        assert linked.client.lrange("billing", 0, -1) == [element]


def test_we_leave_alone_what_kombu_holds(redis_url):
    with (
        linked_broker(redis_url, lease=1.0) as linked,
        kombu_connection(redis_url) as connection,
    ):
        linked.publish(outgoing(b"{}", content_type="application/json"))
        message = get_message(connection, "billing")
        long_ago = time.time() - 1_000
        linked.client.zadd("unacked_index", {message.delivery_tag: long_ago})
        link = linked.link()
        link.keep_alive()
        assert linked.depth() == 0
        message.ack()


def test_two_copies_with_one_delivery_tag_are_two_messages(redis_url):
    with linked_broker(redis_url) as linked:
        linked.publish(outgoing(b"twice"))
        element = linked.client.lrange("billing", 0, 0)[0]
        linked.client.lpush("billing", element)
        link = linked.link()
        first, second = read(link, 2)
        link.ack([first])
        assert linked.client.hlen("unacked") == 1
        link.close()
        assert bodies(read(linked.link(), 1)) == [b"twice"]


def test_kombu_takes_its_share_while_we_wait_on_the_same_queue(redis_url):
    with linked_broker(redis_url) as linked, kombu_connection(redis_url) as connection:
        link = linked.link()
        simple = connection.SimpleQueue("billing")
        for number in range(50):
            simple.put({"n": number})
        seen = [simple.get(timeout=5) for _ in range(20)]
        for message in seen:
            message.ack()
        link.ack(read(link, 30))
        assert linked.keys() == set()
        simple.close()
