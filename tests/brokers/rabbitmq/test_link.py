"""Links: read, settle, requeue, and close."""

from __future__ import annotations

import datetime
import decimal
import struct
import time
import typing as t
from urllib.parse import urlsplit

import amqp
import gevent
import pytest
from amqp.serialization import dumps
from kombu import Exchange
from kombu import Queue

from flask_qconsume.broker import headers
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.rabbitmq import RabbitMQ
from flask_qconsume.brokers.rabbitmq.connection import open_channel
from flask_qconsume.brokers.rabbitmq.link import _CLOSE_TIMEOUT_SECONDS
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.handling.payload import UNREADABLE

from ...faults.proxy import Proxy
from ...servers import RabbitMQ as Server
from ...servers import Vhost
from ...waiting import spend
from ...waiting import wait_for
from .rabbit import QUEUE
from .rabbit import make_order
from .rabbit import make_plan
from .rabbit import open_broker
from .rabbit import open_link
from .rabbit import publish_orders
from .rabbit import raw_channel
from .rabbit import take
from .rabbit import take_one


@pytest.fixture
def broker(rabbitmq_url: str) -> t.Iterator[RabbitMQ]:
    with open_broker(rabbitmq_url) as made:
        yield made


@pytest.fixture(params=["quorum", "classic"])
def either(request: pytest.FixtureRequest, rabbitmq_url: str) -> t.Iterator[RabbitMQ]:
    """A broker object of each type of queue."""
    kind = request.param
    with open_broker(rabbitmq_url, make_plan(type=kind), queue_type=kind) as made:
        yield made


def test_a_connection_that_goes_half_open_while_it_is_opened_is_given_up(
    rabbitmq_url: str,
) -> None:
    """The heartbeat starts later, and the timeout for writes is 30 seconds."""
    address = urlsplit(rabbitmq_url)
    assert address.port is not None
    with Proxy(address.port) as proxy:
        url = rabbitmq_url.replace(f":{address.port}", f":{proxy.port}")
        with (
            open_broker(url, heartbeat=1) as broker,
            pytest.raises(BrokerUnavailable, match="asking failed"),
            open_channel(broker.settings, "asking") as channel,
        ):
            proxy.swallow()
            began = time.monotonic()
            channel.queue_declare("anything")
        assert time.monotonic() - began < 15


def forward_as_dead(delivery: Delivery, **rest: t.Any) -> Forward:
    error = ValueError("no such card")
    changed = headers.make_dead_letter_headers(
        delivery.message, "billing", QUEUE, "bad", error, 1.5
    )
    return Forward(delivery, Lane.DEAD, {**changed, **rest}, expires=60)


@pytest.mark.parametrize("reading", [False, True], ids=["unread", "read"])
def test_a_close_loses_no_acknowledgement_and_no_message(
    either: RabbitMQ, reading: bool
) -> None:
    """We acknowledge right before the close, while many messages are on their way."""
    publish_orders(either, 1000)
    with open_link(either, prefetch=800) as link:
        deliveries = take(link, 500)[:500]
        reader = gevent.spawn(read_until_closed, link) if reading else None
        gevent.sleep(0)
        link.pause()
        link.ack(deliveries)
        link.close()
        if reader is not None:
            assert isinstance(reader.get(timeout=10), BrokerUnavailable)
    wait_for(lambda: either.depth(QUEUE) == 500)
    settled = {delivery.message.raw for delivery in deliveries}
    with open_link(either, prefetch=1000) as link:
        back = take(link, 500)
        assert not settled & {delivery.message.raw for delivery in back}
        assert len(back) == 500


def read_until_closed(link: t.Any) -> Exception:
    try:
        while True:
            link.read(10)
    except BrokerUnavailable as error:
        return error


def test_nothing_is_sent_once_a_link_is_closed(broker: RabbitMQ) -> None:
    publish_orders(broker)
    with open_link(broker) as link:
        delivery = take_one(link)
    assert delivery.stale
    for act in (link.ack, link.release):
        with pytest.raises(BrokerUnavailable, match="closed"):
            act([delivery])
    with pytest.raises(BrokerUnavailable, match="closed"):
        link.keep_alive()
    link.pause()
    assert broker.depth(QUEUE) == 1


def test_a_delivery_of_another_link_is_never_acknowledged(broker: RabbitMQ) -> None:
    publish_orders(broker, 2)
    with open_link(broker, prefetch=1) as link, open_link(broker, prefetch=1) as other:
        take_one(link)
        link.ack([take_one(other)])
    wait_for(lambda: broker.depth(QUEUE) == 2)


def test_released_messages_reach_another_consumer_at_once(either: RabbitMQ) -> None:
    publish_orders(either, 10)
    with open_link(either) as link:
        deliveries = take(link, 10)
        link.pause()
        link.release(deliveries[3:])
        with open_link(either) as other:
            came = take(other, 7)
            assert {d.message.raw for d in came} == {
                d.message.raw for d in deliveries[3:]
            }
            assert all(d.message.redelivered for d in came)
            link.ack(deliveries[:3])
            other.ack(came)
    assert either.depth(QUEUE) == 0


def test_many_are_forwarded_at_once_while_other_messages_are_acknowledged(
    either: RabbitMQ,
) -> None:
    publish_orders(either, 400)
    with open_link(either, prefetch=400) as link:
        deliveries = take(link, 400)
        acking = gevent.spawn(lambda: [link.ack([d]) for d in deliveries[::2]])
        forwards = [forward_as_dead(delivery) for delivery in deliveries[1::2]]
        assert link.forward(forwards) == [None] * 200
        acking.get()
    assert either.depth(QUEUE) == 0
    assert either.depth(f"{QUEUE}.dead") == 200


def test_what_cannot_be_forwarded_stays(rabbitmq_url: str, broker: RabbitMQ) -> None:
    publish_orders(broker)
    config = {"declare": "never", "publish_timeout": 5}
    with open_broker(rabbitmq_url, **config) as careless, open_link(careless) as link:
        with raw_channel(rabbitmq_url) as channel:
            channel.queue_delete(f"{QUEUE}.dead")
        (error,) = link.forward([forward_as_dead(take_one(link))])
        assert f"'{QUEUE}.dead'" in str(error)
    wait_for(lambda: broker.depth(QUEUE) == 1)


def test_a_queue_of_ours_that_was_deleted_comes_back(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    publish_orders(broker, 3)
    with open_link(broker) as link:
        deliveries = take(link, 3)
        with raw_channel(rabbitmq_url) as channel:
            channel.queue_delete(f"{QUEUE}.dead")
        assert link.forward([forward_as_dead(d) for d in deliveries]) == [None] * 3
    assert broker.depth(f"{QUEUE}.dead") == 3


def test_a_deleted_queue_is_told_to_its_reader(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    with open_link(broker) as link:
        reader = gevent.spawn(read_until_closed, link)
        gevent.sleep(0)
        with raw_channel(rabbitmq_url) as channel:
            channel.queue_delete(QUEUE)
        assert "deleted" in str(reader.get(timeout=10))
        assert link.closed
    published_again = open_broker(rabbitmq_url)
    with published_again as again, open_link(again) as link:
        publish_orders(again)
        assert take_one(link).message.raw == b"0"


def test_a_connection_that_the_broker_closes_is_told_to_its_reader(
    rabbitmq_vhost: Vhost, broker: RabbitMQ
) -> None:
    publish_orders(broker)
    with open_link(broker) as link:
        delivery = take_one(link)
        reader = gevent.spawn(read_until_closed, link)
        gevent.sleep(0)
        rabbitmq_vhost.close_connections("by an operator")
        assert "by an operator" in str(reader.get(timeout=10))
        assert delivery.stale


def test_a_dead_broker_is_noticed_by_its_silence(
    own_rabbitmq: Server, own_rabbitmq_vhost: Vhost
) -> None:
    with (
        open_broker(own_rabbitmq_vhost.url, heartbeat=1) as broker,
        open_link(broker) as link,
        own_rabbitmq.frozen(),
    ):
        reader = gevent.spawn(read_until_closed, link)
        with pytest.raises(BrokerUnavailable, match="silent"):
            keep_alive_for(link, 20)
        began = time.monotonic()
        link.close()
        # It waits for no answer.
        assert time.monotonic() - began < _CLOSE_TIMEOUT_SECONDS
        reader.get(timeout=5)


def keep_alive_for(link: t.Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        spend(link.keep_alive_interval)
        link.keep_alive()


def test_a_link_that_beats_lives_and_one_that_stalls_does_too(
    broker: RabbitMQ, rabbitmq_url: str
) -> None:
    """Heartbeats of 1 s, and an event loop that is blocked for 1.5 s."""
    with open_broker(rabbitmq_url, heartbeat=1) as quick, open_link(quick) as link:
        reader = gevent.spawn(take_one, link)
        keep_alive_for(link, 3)
        block_event_loop(1.5)
        for _ in range(10):
            link.keep_alive()
        keep_alive_for(link, 1)
        publish_orders(broker)
        assert reader.get(timeout=5).message.raw == b"0"


def block_event_loop(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


# Odd messages of publishers.


def publish_raw(
    url: str,
    properties: bytes,
    body: bytes = b"{}",
    key: bytes = b"",
    exchange: str = "amq.topic",
) -> None:
    """Publish with content properties and a routing key as raw bytes."""

    class Raw(amqp.Message):  # type: ignore[misc]
        def _serialize_properties(self) -> bytes:
            return properties

    with raw_channel(url) as channel:
        channel.basic_publish(Raw(body), exchange if key else "", key or QUEUE)


def short_property(flag: int, value: bytes) -> bytes:
    return struct.pack(">HB", flag, len(value)) + value


def table_property(table: bytes) -> bytes:
    return struct.pack(">HI", 0x2000, len(table)) + table


@pytest.mark.parametrize("flag", [0x8000, 0x4000, 0x0400, 0x0200, 0x0080, 0x0020])
def test_properties_that_are_no_utf_8_arrive(
    rabbitmq_url: str, broker: RabbitMQ, flag: int
) -> None:
    broker.declare()
    publish_raw(rabbitmq_url, short_property(flag, b"caf\xe9"))
    with open_link(broker) as link:
        delivery = take_one(link)
        message = delivery.message
        assert UNREADABLE not in message.headers
        found = [message.content_type, message.content_encoding, message.id]
        assert "caf\\xe9" in [*found, *message.properties.values()]
        assert link.forward([forward_as_dead(delivery)]) == [None]
    assert broker.depth(QUEUE) == 0


def test_a_routing_key_that_is_no_utf_8_arrives(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    broker.declare()
    with raw_channel(rabbitmq_url) as channel:
        channel.queue_bind(QUEUE, "amq.topic", "#")
    publish_raw(rabbitmq_url, b"\x00\x00", b"", key=b"order.\xff\xfe")
    with open_link(broker) as link:
        delivery = take_one(link)
        assert delivery.message.routing_key == "order.\\xff\\xfe"
        assert delivery.message.raw == b""
        assert link.forward([forward_as_dead(delivery)]) == [None]
    (letter,) = broker.dead_letters(broker.topology.queues[0])
    assert letter.message.routing_key == "order.\\xff\\xfe"


ALL_TYPES: dict[str, t.Any] = {
    "S": "text",
    "bytes": b"\xff\x00",
    "t": True,
    "I": 2**31 - 1,
    "l": -(2**63),
    "d": 0.5,
    "D": decimal.Decimal("12.34"),
    "T": datetime.datetime(2026, 1, 2),
    "F": {"in": {"deep": [1, {"er": None}]}},
    "A": ["a", 2, None],
    "V": None,
}

#: Types that py-amqp reads and does not write: name, letter, bytes, value.
MORE_TYPES = [
    (b"b", b"\xff", -1),
    (b"B", b"\xff", 255),
    (b"s", b"\xff\xfe", -2),
    (b"u", b"\xff\xfe", 65534),
    (b"i", b"\xff\xff\xff\xff", 2**32 - 1),
    (b"f", struct.pack(">f", 0.25), 0.25),
    (b"x", b"\x00\x00\x00\x02\x00\xff", b"\x00\xff"),
]


def test_a_header_table_of_every_type_arrives_and_can_be_forwarded(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    broker.declare()
    table = dumps("F", (ALL_TYPES,))[4:]
    for letter, raw, _ in MORE_TYPES:
        table += bytes([len(letter) + 1]) + b"_" + letter + letter + raw
    table += b"\x02\xff\xfeS\x00\x00\x00\x01x"
    publish_raw(rabbitmq_url, table_property(table))
    expected = {
        **ALL_TYPES,
        **{f"_{letter.decode()}": value for letter, _, value in MORE_TYPES},
        "\\xff\\xfe": "x",
    }
    with open_link(broker) as link:
        delivery = take_one(link)
        assert {**delivery.message.headers, **expected} == delivery.message.headers
        forward = Forward(
            delivery, Lane.MAIN, headers.make_retry_headers(delivery.message, 2)
        )
        assert link.forward([forward]) == [None]
        assert {**take_one(link).message.headers, **expected}.keys() >= expected.keys()


LATE = b"\x01T" + b"T" + struct.pack(">Q", 2**62)
DEEP = 2000


def nested(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01n" + b"F" + struct.pack(">I", len(table)) + table
    return table


@pytest.mark.parametrize("table", [LATE, nested(DEEP)], ids=["date", "depth"])
def test_headers_that_cannot_be_read_are_told_and_the_message_arrives(
    rabbitmq_url: str, broker: RabbitMQ, table: bytes
) -> None:
    broker.declare()
    flags = struct.pack(">HI", 0x2000 | 0x0080, len(table))
    publish_raw(rabbitmq_url, flags + table + b"\x03abc", b"body")
    publish_orders(broker)
    with open_link(broker) as link:
        bad, good = take(link, 2)
        assert "Error" in bad.message.headers[UNREADABLE]
        assert (bad.message.raw, bad.message.id) == (b"body", "abc")
        assert good.message.raw == b"0"
        assert link.forward([forward_as_dead(bad)]) == [None]
        link.ack([good])
    plan = broker.topology.queues[0]
    (letter,) = broker.dead_letters(plan)
    assert letter.message.raw == b"body"
    assert broker.dead_letters(plan).take(lambda _: True, replay=True) == 1
    with open_link(broker) as link:
        assert UNREADABLE not in take_one(link).message.headers


def test_a_copy_that_cannot_carry_a_header_carries_it_as_text(
    broker: RabbitMQ,
) -> None:
    publish_orders(broker)
    with open_link(broker) as link:
        delivery = take_one(link)
        odd = {"big": 2**80, "object": object, "n" * 300: 1, "BCC": ["spy"], "ok": 1}
        assert link.forward([forward_as_dead(delivery, **odd)]) == [None]
    (letter,) = broker.dead_letters(broker.topology.queues[0])
    found = letter.message.headers
    assert found["big"] == str(2**80)
    assert found["ok"] == 1
    assert "BCC" not in found
    assert found["x-qconsume-changed-headers"].startswith("big, object, nnn")


@pytest.mark.parametrize("size", [100_000, 130_700])
def test_a_copy_whose_headers_do_not_fit_a_frame_is_made_to_fit(
    broker: RabbitMQ, size: int
) -> None:
    publish_orders(broker, headers={"large": "x" * size})
    with open_link(broker) as link:
        delivery = take_one(link)
        long = {headers.TRACEBACK: "t" * 16_000, headers.DETAILS: "d" * 18_000}
        assert link.forward([forward_as_dead(delivery, **long)]) == [None]
    (letter,) = broker.dead_letters(broker.topology.queues[0])
    assert letter.headers[headers.REASON] == "bad"
    if size == 100_000:
        assert letter.message.headers["large"] == "x" * size
    else:
        assert letter.headers["x-qconsume-changed-headers"] == "large"


def test_a_queue_of_another_project_is_used_as_given(rabbitmq_url: str) -> None:
    exchange = Exchange("theirs", type="direct", durable=False, auto_delete=True)
    given = Queue(
        "inbox",
        exchange,
        routing_key="mail",
        durable=True,
        queue_arguments={"x-max-length": 10},
        max_priority=5,
    )
    with open_broker(rabbitmq_url, make_plan("inbox", given=given)) as broker:
        broker.declare()
        message = make_order(1, "mail", exchange="theirs")
        assert broker.publish([message], 10) == [None]
        with open_link(broker) as link:
            delivery = take_one(link)
            assert link.forward([forward_as_dead(delivery)]) == [None]
        assert broker.depth("inbox.dead") == 1
        with raw_channel(rabbitmq_url) as channel:
            arguments = {"x-max-length": 10, "x-max-priority": 5}
            channel.queue_declare(
                "inbox", durable=True, auto_delete=False, arguments=arguments
            )
