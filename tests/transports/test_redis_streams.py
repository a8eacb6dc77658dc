"""kombu on Redis Streams, without Flask and without our consumers."""

from __future__ import annotations

import signal
import socket
import sys
import time
import typing as t

import pytest
from kombu import Connection
from kombu import Exchange
from kombu import Queue

from flask_qconsume.broker.link import Lane
from flask_qconsume.errors import ConfigurationError
from flask_qconsume.errors import PublishTimeout
from flask_qconsume.transports import redis_streams

from ..brokers.redis.tools import linked_broker
from ..brokers.redis.tools import outgoing
from ..brokers.redis.tools import read
from ..harness.scripts import running
from ..servers import Redis
from ..waiting import wait_for

EXCHANGE = Exchange("shop", type="topic")
BILLING = Queue("billing", EXCHANGE, routing_key="billing")

SCRIPT = """
import sys

from kombu import Connection, Exchange, Queue
from kombu.mixins import ConsumerMixin

import flask_qconsume.transports.redis_streams  # Makes the scheme known.

billing = Queue("billing", Exchange("shop", type="topic"), routing_key="order.#")


class Worker(ConsumerMixin):
    def __init__(self, connection):
        self.connection = connection

    def get_consumers(self, Consumer, channel):
        return [Consumer([billing], callbacks=[self.on_message], prefetch_count=10)]

    def on_consume_ready(self, connection, channel, consumers, **kwargs):
        print("ready", flush=True)

    def on_message(self, body, message):
        print(body["n"], message.delivery_info["routing_key"], flush=True)
        if body["n"] == 99:
            self.should_stop = True
        if body["n"] != 50:
            message.ack()


with Connection(sys.argv[1]) as connection:
    Worker(connection).run()
"""


@pytest.fixture
def url(redis_url):
    return redis_url.replace("redis:", "redis-streams:")


def take(connection, queue=BILLING, *, count=1, prefetch=0, ack=True):
    """Consume ``count`` messages, and return them."""
    found: list = []
    with connection.channel() as channel:
        consumer = connection.Consumer([queue], channel=channel, accept=["json"])
        consumer.qos(prefetch_count=prefetch)
        consumer.register_callback(lambda body, message: found.append(message))
        with consumer:
            while len(found) < count:
                connection.drain_events(timeout=5)
                if ack:
                    found[-1].ack()
    return found


def send(connection, body, key="billing", **more):
    producer = connection.Producer(serializer="json")
    declare = more.pop("declare", [BILLING])
    producer.publish(body, exchange="shop", routing_key=key, declare=declare, **more)


def test_a_script_of_thirty_lines_consumes_with_a_consumer_mixin(url):
    script = [sys.executable, "-W", "error", "-c", SCRIPT, url]
    with running(script) as worker:
        output = t.cast(t.TextIO, worker.stdout)
        assert output.readline() == "ready\n"
        with Connection(url) as connection:
            for number in range(100):
                send(connection, {"n": number}, "order.new", declare=[EXCHANGE])
        lines = [line.split() for line in output]
    assert worker.returncode == 0
    assert lines == [[str(number), "order.new"] for number in range(100)]
    with linked_broker(url) as linked:
        (left,) = read(linked.link(), 1)  # The message that was not acknowledged.
        assert left.message.raw == b'{"n": 50}'
        assert not left.message.redelivered


def test_what_a_killed_script_held_comes_again(url):
    script = SCRIPT.replace('if body["n"] != 50:', "if False:")
    with running([sys.executable, "-c", script, url]) as worker:
        output = t.cast(t.TextIO, worker.stdout)
        assert output.readline() == "ready\n"
        with Connection(url) as connection:
            for number in range(20):
                send(connection, {"n": number}, "order.new", declare=[EXCHANGE])
            held = [output.readline() for _ in range(10)]
        worker.send_signal(signal.SIGKILL)
    assert len(held) == 10
    with linked_broker(url, lease=2) as linked:
        link = linked.link()
        wait_for(
            lambda: link.keep_alive() or linked.depth() == 20, timeout=10, interval=0.2
        )
        found = read(link, 20)
        assert [d.message.redelivered for d in found].count(True) == 10


def test_what_we_publish_is_consumed_by_kombu_and_the_other_way_round(url):
    with linked_broker(url) as linked, Connection(url) as connection:
        sent = outgoing(
            b'{"n": 1}', content_type="application/json", headers={"a": 1}, priority=9
        )
        linked.publish(sent)
        (message,) = take(connection)
        assert message.payload == {"n": 1}
        assert message.headers["a"] == 1
        assert message.properties["message_id"] == sent.id
        send(connection, {"n": 2}, headers={"b": 2}, priority=4)
        (delivery,) = read(linked.link(), 1)
        assert delivery.message.raw == b'{"n": 2}'
        assert delivery.message.headers == {"b": 2}
        assert delivery.message.content_type == "application/json"
        assert (delivery.message.exchange, delivery.message.priority) == ("shop", 4)


def test_no_more_is_delivered_than_the_prefetch(url):
    with Connection(url) as connection:
        for number in range(3):
            send(connection, number)
        found: list = []
        consumer = connection.Consumer([BILLING], accept=["json"])
        consumer.qos(prefetch_count=2)
        consumer.register_callback(lambda body, message: found.append(message))
        with consumer:
            for _ in range(2):
                connection.drain_events(timeout=5)
            with pytest.raises(socket.timeout):
                connection.drain_events(timeout=0.2)
            found[0].ack()
            connection.drain_events(timeout=5)
        assert [message.payload for message in found] == [0, 1, 2]


def test_acknowledgements_go_together_without_waiting(url):
    with linked_broker(url) as linked, Connection(url) as connection:
        for number in range(50):
            send(connection, number)
        before = acknowledged(linked)
        found: list = []
        consumer = connection.Consumer([BILLING], accept=["json"])
        consumer.register_callback(lambda body, message: found.append(message))
        with consumer:
            for number in range(50):
                connection.drain_events(timeout=5)
                found[-1].ack()
                if number == 30:
                    # As if a handler took long: the earlier acknowledgements are sent
                    # meanwhile.
                    wait_for(lambda: linked.client.xlen("billing") == 19, timeout=2)
            assert linked.client.xlen("billing") == 0
        assert acknowledged(linked) - before < 25
        assert [message.payload for message in found] == list(range(50))


def acknowledged(linked) -> int:
    """Count the commands by which Redis got acknowledgements."""
    found = linked.client.info("commandstats").get("cmdstat_xack")
    return found["calls"] if found else 0


def test_a_rejected_message_is_a_dead_letter_and_a_requeued_one_comes_again(url):
    with linked_broker(url) as linked, Connection(url) as connection:
        send(connection, {"n": 1})
        (message,) = take(connection, ack=False)
        queue = BILLING(connection.default_channel)
        found = queue.get(accept=["json"])
        assert found.payload == message.payload  # Its channel was closed.
        found.requeue()
        queue.get(accept=["json"]).reject()
        assert queue.get() is None
        (dead,) = linked.broker.dead_letters(linked.plan)
        assert dead.message.raw == b'{"n": 1}'
        assert linked.depth() == 0


def test_a_requeued_message_is_redelivered_and_one_of_a_closed_channel_is_not(url):
    with Connection(url) as connection:
        send(connection, 1)
        channel = connection.channel()
        BILLING(channel).get(accept=["json"])
        channel.close()
        (message,) = take(connection, ack=False)
        queue = BILLING(connection.default_channel)
        again = queue.get(accept=["json"])
        assert not message.delivery_info["redelivered"]
        assert not again.delivery_info["redelivered"]
        again.requeue()
        last = queue.get(accept=["json"])
        assert last.delivery_info["redelivered"]
        last.ack()


def test_what_has_expired_is_not_delivered(url):
    with linked_broker(url) as linked, Connection(url) as connection:
        for number in range(3):
            send(connection, number, expiration=0)
        send(connection, 3, expiration=60)
        assert [m.payload for m in take(connection)] == [3]
        send(connection, 4, expiration=0)
        assert BILLING(connection.default_channel).get() is None
        assert linked.depth() == 0


def test_our_own_headers_are_neither_shown_nor_forwarded(url):
    with linked_broker(url) as linked, Connection(url) as connection:
        linked.publish(outgoing(b"1", headers={"a": 1}, key="k", expires=60.0))
        (message,) = take(connection)
        assert message.headers == {"a": 1}
        assert message.properties["timestamp"]
        send(connection, 2, headers=message.headers)
        (delivery,) = read(linked.link(), 1)
        assert delivery.message.headers == {"a": 1}
        assert delivery.message.expires_at is None


def test_the_properties_of_amqp_arrive(url):
    given = {
        "correlation_id": "c",
        "reply_to": "r",
        "type": "t",
        "app_id": "a",
        "cluster_id": "l",
        "user_id": "u",
        "message_id": "m",
        "timestamp": 1_700_000_000,
    }
    with Connection(url) as connection:
        send(connection, 1, priority=7, **given)
        (message,) = take(connection)
        assert {name: message.properties[name] for name in given} == given
        assert message.properties["priority"] == 7


def test_a_busy_queue_does_not_hold_up_another_one(url):
    busy, quiet = Queue("busy", routing_key="busy"), Queue("quiet", routing_key="quiet")
    with Connection(url) as connection:
        producer = connection.Producer(serializer="json")
        for number in range(300):
            producer.publish(number, routing_key="busy", declare=[busy])
        found: list = []
        consumer = connection.Consumer([busy, quiet], accept=["json"])
        consumer.register_callback(lambda body, message: found.append(message))
        with consumer:
            for _ in range(5):
                connection.drain_events(timeout=5)
            producer.publish("now", routing_key="quiet")
            while found[-1].payload != "now":
                connection.drain_events(timeout=5)
        assert len(found) < 20


def test_what_was_read_for_a_consumer_that_is_cancelled_goes_back(url):
    with linked_broker(url) as linked, Connection(url) as connection:
        for number in range(3):
            send(connection, number)
        consumer = connection.Consumer([BILLING], accept=["json"], prefetch_count=9)
        consumer.register_callback(lambda body, message: message.ack())
        with consumer:
            connection.drain_events(timeout=5)
        wait_for(lambda: linked.depth() == 2, timeout=5)
        left = read(linked.link(), 2)
        assert [d.message.redelivered for d in left] == [False, False]


def test_the_next_url_of_a_list_is_used_and_one_can_switch(url, redis_server):
    other = redis_server.fresh_url().replace("redis:", "redis-streams:")
    nowhere = "redis-streams://127.0.0.1:1/0"
    with Connection(f"{nowhere};{url}") as connection:
        send(connection, 1)
        assert [m.payload for m in take(connection)] == [1]
        connection.switch(other)
        send(connection, 2)
        with Connection(other) as there:
            assert [m.payload for m in take(there)] == [2]
    redis_server.command("FLUSHDB", url=other.replace("redis-streams:", "redis:"))


def test_one_can_switch_to_a_socket_of_the_machine(url, tmp_path):
    path = tmp_path / "s"
    with (
        Redis(tmp_path / "redis", options={"unixsocket": str(path)}),
        Connection(url) as connection,
    ):
        connection.switch(f"redis-streams+socket://{path}")
        send(connection, 1)
        assert [m.payload for m in take(connection)] == [1]


def test_a_header_holds_a_message_back(url):
    with Connection(url) as connection:
        started = time.monotonic()
        send(connection, 1, headers={"x-delay": 300})
        take(connection)
        assert time.monotonic() - started > 0.3


def test_a_fanout_exchange_is_durable(url):
    news = Exchange("news", type="fanout")
    both = [Queue("a", news), Queue("b", news)]
    with Connection(url) as connection:
        producer = connection.Producer(serializer="json")
        for queue in both:
            queue(connection.default_channel).declare()
        producer.publish({"n": 1}, exchange="news", routing_key="any", declare=[news])
        for queue in both:
            assert [m.payload for m in take(connection, queue)] == [{"n": 1}]


def test_leases_are_prolonged_while_a_handler_works(url):
    options = {"lease": 1}
    with (
        linked_broker(url, lease=1) as linked,
        Connection(url, transport_options=options) as mine,
    ):
        send(mine, 1)
        channel = mine.default_channel
        message = BILLING(channel).get(accept=["json"])
        other = linked.broker.connect(linked.plan, Lane.MAIN, 1)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            other.keep_alive()
            assert other.read(1) == []
        message.ack()
        other.close()
        assert linked.client.xlen("billing") == 0


def test_queues_are_counted_purged_and_deleted(url):
    with Connection(url) as connection:
        for number in range(3):
            send(connection, number)
        bound = BILLING(connection.default_channel)
        assert bound.queue_declare(passive=True).message_count == 3
        assert bound.purge() == 3
        bound.delete()
        with pytest.raises(connection.channel_errors):
            bound.queue_declare(passive=True)


def test_two_consumers_of_a_queue_on_one_connection_are_refused(url):
    with Connection(url) as connection:
        first = connection.Consumer([BILLING])
        with first, pytest.raises(ValueError, match="has a consumer"):
            connection.Consumer([BILLING]).consume()


def test_kombus_producer_waits_for_replicas_too(url):
    options = {"wait_replicas": 1, "wait_timeout": 0.1}
    with Connection(url, transport_options=options) as connection:
        producer = connection.Producer()
        with pytest.raises(PublishTimeout, match="only 0 of the 1 replicas"):
            producer.publish({}, routing_key="billing")


def test_a_socket_of_the_machine(redis_server, tmp_path):
    path = tmp_path / "s"
    with (
        Redis(tmp_path / "redis", options={"unixsocket": str(path)}),
        Connection(f"redis-streams+socket://{path}") as connection,
    ):
        send(connection, 1)
        assert [m.payload for m in take(connection)] == [1]


def test_a_cluster_is_refused():
    connection = Connection("redis-streams+cluster://localhost")
    with pytest.raises(ConfigurationError, match="Consume by flask_qconsume"):
        connection.connect()


def test_passwords_are_not_shown():
    with Connection("redis-streams://user:secret@localhost:1/0") as connection:
        assert "secret" not in connection.as_uri()
        assert "secret" in connection.as_uri(include_password=True)
    assert redis_streams.TRANSPORT_ALIASES["rediss-streams"]


def test_a_consumer_mixin_goes_on_after_a_restart_of_redis(own_redis):
    url = own_redis.url.replace("redis:", "redis-streams:")
    script = [sys.executable, "-c", SCRIPT.replace("!= 50", "is not None"), url]
    # A message comes again if the restart was faster than its acknowledgement.
    known = {"ready\n"}
    with running(script) as worker:
        output = t.cast(t.TextIO, worker.stdout)
        assert output.readline() == "ready\n"
        for number in (1, 2, 99):
            with Connection(url) as connection:
                send(connection, {"n": number}, "order.new", declare=[EXCHANGE])
            while (line := output.readline()) in known:
                pass
            assert line == f"{number} order.new\n"
            known.add(line)
            own_redis.restart()
    assert worker.returncode == 0
