"""kombu on Kafka, without Flask and without our consumers."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import typing as t
from collections import Counter

import pytest
from kombu import Connection
from kombu import Exchange
from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.pidbox import Mailbox

import flask_qconsume.transports.kafka  # noqa: F401  Makes the scheme known.

from ..brokers.kafka.client.tools import produce
from ..harness.scripts import running
from ..servers import Kafka
from ..waiting import wait_for

SCRIPT = """
import sys

from kombu import Connection, Exchange, Queue
from kombu.mixins import ConsumerMixin

import flask_qconsume.transports.kafka  # Makes the scheme known.

url, prefix = sys.argv[1:]
orders = Queue(prefix + "billing", Exchange("shop", type="topic"), prefix + "order.#")


class Worker(ConsumerMixin):
    def __init__(self, connection):
        self.connection = connection

    def get_consumers(self, Consumer, channel):
        return [Consumer([orders], callbacks=[self.on_message], prefetch_count=10)]

    def on_consume_ready(self, connection, channel, consumers, **kwargs):
        print("ready", flush=True)

    def on_message(self, body, message):
        print(body["n"], message.delivery_info["routing_key"], flush=True)
        if body["n"] == 99:
            self.should_stop = True
        if body["n"] != 50:
            message.ack()


short = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 500}
options = {"lease": 6, "kafka_consumer_config": short}
with Connection(url, transport_options=options) as connection:
    Worker(connection).run()
"""


SHOP = Exchange("shop", type="topic")


class Place(t.NamedTuple):
    """The topics of one test."""

    url: str
    prefix: str

    def queue(self, name: str = "billing", key: str = "order.new") -> Queue:
        return Queue(self.prefix + name, SHOP, self.prefix + key)

    def connect(self, **options: t.Any) -> Connection:
        return Connection(self.url, transport_options={"partitions": 2, **options})

    def send(self, connection: Connection, *numbers: int, **more: t.Any) -> None:
        producer = connection.Producer(serializer="json")
        for n in numbers:
            producer.publish(
                {"n": n}, exchange="shop", routing_key=f"{self.prefix}order.new", **more
            )

    @contextlib.contextmanager
    def script(self, code: str = SCRIPT) -> t.Iterator[subprocess.Popen[str]]:
        """Run a program that consumes, until its end."""
        command = [sys.executable, "-W", "error", "-c", code, self.url, self.prefix]
        with running(command) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            yield program


@pytest.fixture
def place(kafka: Kafka, kafka_prefix: str) -> Place:
    kafka.create_topics({f"{kafka_prefix}order.new": 2})
    return Place(kafka.url, kafka_prefix)


def take(
    connection: Connection, queue: Queue, count: int, ack: bool = True
) -> list[t.Any]:
    """Consume ``count`` messages, and return them."""
    found: list[t.Any] = []
    consumer = connection.Consumer([queue], accept=["json"])
    consumer.register_callback(lambda body, message: found.append(message))
    with consumer:
        while len(found) < count:
            connection.drain_events(timeout=20)
            if ack:
                found[-1].ack()
    return found


def depth(place: Place) -> int:
    """Count the messages of the queue that are not committed as handled."""
    with place.connect() as connection:
        bound = place.queue()(connection.default_channel)
        return int(bound.queue_declare(passive=True).message_count)


def numbers(messages: t.Iterable[t.Any]) -> list[int]:
    return sorted(message.payload["n"] for message in messages)


def idle(connection: Connection, seconds: float = 0.5) -> None:
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=seconds)


def test_a_script_of_thirty_lines_consumes_with_a_consumer_mixin(place: Place) -> None:
    with place.script() as worker, place.connect() as connection:
        place.send(connection, *range(100))
        lines = [line.split() for line in worker.stdout or ()]
    assert worker.returncode == 0
    key = f"{place.prefix}order.new"
    assert {tuple(line) for line in lines} <= {(str(n), key) for n in range(100)}
    done = {int(n) for n, _ in lines}
    with place.connect() as connection:
        # Exactly the messages that were not acknowledged, or sent after the end.
        left = take(connection, place.queue(), 100 - len(done - {50}))
        assert set(numbers(left)) == set(range(100)) - (done - {50})
        assert not any(each.delivery_info["redelivered"] for each in left)


def test_what_a_killed_script_held_comes_again(place: Place) -> None:
    with place.connect() as connection:
        code = SCRIPT.replace("!= 50", "< 10")
        with place.script(code) as worker:
            place.send(connection, *range(10))
            assert worker.stdout is not None
            for _ in range(10):
                worker.stdout.readline()
            place.send(connection, *range(10, 18))
            held = {int(worker.stdout.readline().split()[0]) for _ in range(8)}
            worker.send_signal(signal.SIGKILL)
        assert held == set(range(10, 18))
        found = take(connection, place.queue(), 8)
        again = Counter(numbers(found))
        assert set(again) >= held
        marked = {m.payload["n"] for m in found if m.delivery_info["redelivered"]}
        assert marked >= held


def test_only_what_was_not_acknowledged_comes_again(place: Place) -> None:
    with place.connect() as connection:
        place.send(connection, *range(20))
        for message in (found := take(connection, place.queue(), 20, ack=False)):
            if message.payload["n"] % 3:
                message.ack()
    assert numbers(found) == list(range(20))
    with place.connect() as connection:
        again = take(connection, place.queue(), 7)
        assert numbers(again) == [n for n in range(20) if n % 3 == 0]
        assert not any(each.delivery_info["redelivered"] for each in again)


def test_no_more_is_delivered_than_the_prefetch(place: Place) -> None:
    with place.connect() as connection:
        place.send(connection, 0, 1, 2)
        found: list[t.Any] = []
        consumer = connection.Consumer([place.queue()], accept=["json"])
        consumer.qos(prefetch_count=2)
        consumer.register_callback(lambda body, message: found.append(message))
        with consumer:
            for _ in range(2):
                connection.drain_events(timeout=20)
            idle(connection)
            found[0].ack()
            connection.drain_events(timeout=5)
        assert numbers(found) == [0, 1, 2]


def test_a_requeued_message_comes_again_and_a_rejected_one_is_a_dead_letter(
    place: Place,
) -> None:
    with place.connect() as connection:
        place.send(connection, 1, 2)
        one, two = take(connection, place.queue(), 2, ack=False)
        one.reject()
        two.requeue()
        (again,) = take(connection, place.queue(), 1)
        assert again.payload == two.payload
        assert (
            again.delivery_info["redelivered"],
            two.delivery_info["redelivered"],
        ) == (
            True,
            False,
        )
        assert again.delivery_info["routing_key"] == f"{place.prefix}order.new"
        place_of_the_dead = f"_qconsume.{place.prefix}billing.dead"
        looking = Queue(f"{place.prefix}looking", SHOP, place_of_the_dead)
        mark, dead = take(connection, looking, 2)
        assert mark.body == b""  # The mark that the group has begun.
        assert dead.payload == one.payload
    with place.connect() as connection:
        consumer = connection.Consumer([place.queue()], callbacks=[print])
        with consumer:
            idle(connection, 1.5)


def test_headers_properties_and_keys_come_as_they_were_sent(place: Place) -> None:
    with place.connect() as connection:
        place.send(
            connection,
            1,
            key="order-1",
            headers={"a": 1, "b": "two"},
            correlation_id="c",
            reply_to="r",
        )
        (message,) = take(connection, place.queue(), 1)
    assert (message.headers["a"], message.headers["b"]) == (1, "two")
    assert message.properties["correlation_id"] == "c"
    assert message.properties["reply_to"] == "r"
    assert message.properties["key"] == "order-1"
    assert message.content_type == "application/json"
    assert message.delivery_info["exchange"] == "shop"


def test_what_is_sent_to_a_queue_by_its_name_is_for_its_group_only(
    place: Place,
) -> None:
    with place.connect() as connection:
        queue, other = place.queue(), place.queue("other")
        for each in (queue, other):
            each(connection.default_channel).declare()
        producer = connection.Producer(serializer="json")
        producer.publish({"n": 1}, routing_key=queue.name)
        producer.publish({"n": 2}, exchange="shop", routing_key=queue.routing_key)
        assert numbers(take(connection, queue, 2)) == [1, 2]
        assert numbers(take(connection, other, 1)) == [2]


def test_what_is_held_back_by_a_header_comes_later(place: Place) -> None:
    with place.connect() as connection:
        queue = place.queue()
        queue(connection.default_channel).declare()
        producer = connection.Producer(serializer="json")
        producer.publish({"n": 1}, routing_key=queue.name, headers={"x-delay": 1500})
        producer.publish({"n": 2}, routing_key=queue.name)
        found = take(connection, queue, 2)
        assert [m.payload["n"] for m in found] == [2, 1]


def test_what_is_worth_nothing_any_more_does_not_come(place: Place) -> None:
    with place.connect() as connection:
        place.send(connection, 1, expiration=0.001)
        place.send(connection, 2)
        assert numbers(take(connection, place.queue(), 1)) == [2]


def test_a_fanout_exchange_is_a_topic_of_its_name(place: Place) -> None:
    news = Exchange(f"{place.prefix}news", type="fanout")
    both = [Queue(place.prefix + name, news) for name in "ab"]
    with place.connect() as connection:
        for queue in both:
            queue(connection.default_channel).declare()
        producer = connection.Producer(serializer="json")
        producer.publish({"n": 1}, exchange=news, routing_key="any", declare=[news])
        for queue in both:
            assert numbers(take(connection, queue, 1)) == [1]


def test_an_empty_routing_key_is_a_topic_of_its_exchange(place: Place) -> None:
    direct = Exchange(f"{place.prefix}direct", type="direct")
    queue = Queue(f"{place.prefix}billing", direct)
    with place.connect() as connection:
        queue(connection.default_channel).declare()
        connection.Producer(serializer="json").publish({"n": 1}, exchange=direct)
        assert numbers(take(connection, queue, 1)) == [1]


def test_queues_are_read_counted_purged_and_deleted(
    place: Place,
) -> None:
    with place.connect() as connection:
        bound = place.queue()(connection.default_channel)
        bound.declare()
        assert bound.get() is None
        place.send(connection, 1, 2, 3)
        assert bound.queue_declare(passive=True).message_count == 3
        bound.get(accept=["json"]).ack()
        wait_for(lambda: bound.queue_declare(passive=True).message_count == 2)
        assert bound.purge() == 2
        assert bound.get() is None
        bound.delete()
        with pytest.raises(connection.channel_errors):
            bound.queue_declare(passive=True)


def test_what_goes_nowhere_is_an_error_if_it_is_mandatory(place: Place) -> None:
    nowhere = f"{place.prefix}nowhere"
    with place.connect() as connection:
        producer = connection.Producer(serializer="json")
        for exchange in ("shop", ""):
            where = {"exchange": exchange, "routing_key": nowhere}
            producer.publish({}, mandatory=False, **where)
            with pytest.raises(connection.channel_errors, match="nowhere"):
                producer.publish({}, mandatory=True, **where)


def test_all_properties_of_amqp_come_as_they_were_sent(place: Place) -> None:
    told = {
        "timestamp": 1_700_000_000,
        "priority": 5,
        "user_id": "guest",
        "app_id": "shop",
        "type": "order",
        "message_id": "m",
    }
    with place.connect() as connection:
        place.send(connection, 1, expiration=60, **told)
        (message,) = take(connection, place.queue(), 1)
    assert {name: message.properties[name] for name in told} == told
    assert message.properties["expiration"] == "60000"


def test_what_is_forwarded_takes_nothing_along_of_its_first_way(place: Place) -> None:
    with place.connect() as connection:
        queue, other = place.queue(), place.queue("other", "other.new")
        other(connection.default_channel).declare()
        place.send(connection, 1, headers={"tenant": "a"}, expiration=60)
        (first,) = take(connection, queue, 1, ack=False)
        first.requeue()
        (again,) = take(connection, queue, 1)
        assert again.headers == {"tenant": "a"}
        connection.Producer(serializer="json").publish(
            again.payload,
            exchange="shop",
            routing_key=other.routing_key,
            headers=again.headers,
        )
        (forwarded,) = take(connection, other, 1)
    assert forwarded.headers == {"tenant": "a"}
    assert forwarded.delivery_info["routing_key"] == other.routing_key
    assert not forwarded.delivery_info["redelivered"]


def test_a_key_that_is_not_utf8_can_be_published_again(
    place: Place, kafka: Kafka
) -> None:
    key = b"\xff\x00"
    body = b'{"n": 1}'
    produce(kafka.address, f"{place.prefix}order.new", [body], key=lambda value: key)
    with place.connect() as connection:
        queue = place.queue()(connection.default_channel)
        queue.declare()
        message = wait_for(lambda: queue.get(no_ack=True))
        assert message.properties["key"] == key
        place.send(connection, 2, key=message.properties["key"])
        again = wait_for(lambda: queue.get(no_ack=True))
        assert again.properties["key"] == key


@pytest.mark.parametrize("name", ["celery@host", "a b/ü", "_x40_", "a_@_x"])
def test_any_name_of_a_queue_is_possible(place: Place, name: str) -> None:
    queue = place.queue(name, "order.new")
    direct = Queue(place.prefix + name, Exchange("direct"), place.prefix + name)
    with place.connect() as connection:
        for each in queue, direct:
            each(connection.default_channel).declare()
        producer = connection.Producer(serializer="json")
        producer.publish({"n": 1}, routing_key=queue.name)
        producer.publish({"n": 2}, exchange="direct", routing_key=direct.routing_key)
        found = take(connection, queue, 2)
        keys = {m.payload["n"]: m.delivery_info["routing_key"] for m in found}
        assert keys == {1: queue.name, 2: queue.name}
        queue(connection.default_channel).delete()


def test_a_mailbox_of_a_node_hears_what_is_broadcast(place: Place) -> None:
    """A Celery worker opens a mailbox when it starts."""
    heard: list[str] = []
    mailbox = Mailbox(f"{place.prefix}celery", type="fanout")
    with place.connect() as connection:
        node = mailbox(connection).Node(f"{place.prefix}celery@host")
        node.channel = connection.default_channel
        node.handlers["ping"] = lambda state, **_: heard.append("ping")
        with node.listen():
            mailbox(connection).cast([node.hostname], "ping")
            connection.drain_events(timeout=20)
    assert heard == ["ping"]


def test_the_next_url_of_a_list_is_used_and_one_can_switch(place: Place) -> None:
    dead = "kafka://127.0.0.1:1"
    with Connection(f"{dead};{place.url}") as connection:
        # kombu's default: one retry, within 5 s.
        place.send(connection, 1)
    with Connection(dead) as connection:
        connection.switch(place.url)
        assert numbers(take(connection, place.queue(), 1)) == [1]


def test_two_consumers_of_a_queue_on_one_connection_are_refused(place: Place) -> None:
    with place.connect() as connection:
        first = connection.Consumer([place.queue()])
        with first, pytest.raises(ValueError, match="has a consumer"):
            connection.Consumer([place.queue()]).consume()


def test_a_broker_that_is_not_there_is_a_connection_error() -> None:
    with (
        Connection("kafka://127.0.0.1:1") as connection,
        pytest.raises(OperationalError, match="Kafka does not answer"),
    ):
        connection.ensure_connection(max_retries=1, timeout=1)


def test_passwords_are_not_shown() -> None:
    with Connection("kafkas://user:secret@a:1,b:2") as connection:
        assert "secret" not in connection.as_uri()
        assert "secret" in connection.as_uri(include_password=True)


def test_a_consumer_mixin_goes_on_after_a_restart_of_kafka(own_kafka: Kafka) -> None:
    own_kafka.create_topics({"order.new": 2})
    place = Place(own_kafka.url, "")
    code = SCRIPT.replace("!= 50", "is not None")
    # A member that Kafka has missed for two seconds gets messages again.
    known = {"ready\n"}
    with place.script(code) as worker:
        assert worker.stdout is not None
        for number in (1, 2, 99):
            with place.connect() as connection:
                place.send(connection, number)
            while (line := worker.stdout.readline()) in known:
                pass
            assert line == f"{number} order.new\n"
            known.add(line)
            if number == 1:
                # Without its commit, the message would come again after the restart.
                wait_for(lambda: depth(place) == 0)
                own_kafka.restart()
    assert worker.returncode == 0
