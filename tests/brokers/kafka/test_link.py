"""A link to Kafka: deliveries when their partition or broker goes away."""

from __future__ import annotations

import contextlib
import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

import gevent
import pytest
from confluent_kafka.admin import AdminClient

from flask_qconsume import BrokerError
from flask_qconsume import BrokerUnavailable
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.brokers.kafka.client.partition import ReadyRecord
from flask_qconsume.brokers.kafka.link import KafkaLink
from flask_qconsume.brokers.kafka.link import create_terms
from flask_qconsume.message import Message

from ...servers.kafka import Kafka
from ...waiting import wait_for
from .client.tools import Group
from .client.tools import config
from .client.tools import numbers
from .client.tools import produce

PARTITIONS = 4


@pytest.fixture
def queue(kafka: Kafka, kafka_prefix: str) -> str:
    """The name of a queue, and of the one topic that it reads."""
    name = f"{kafka_prefix}billing"
    kafka.create_topics({name: PARTITIONS})
    return name


@contextlib.contextmanager
def linked(
    address: str,
    queue: str,
    *,
    ordering: str = "none",
    lane: Lane = Lane.MAIN,
    prefetch: int = 20,
    grace: float = 10.0,
    refuse: t.Callable[[Forward], Exception | None] = lambda forward: None,
    **settings: t.Any,
) -> Iterator[KafkaLink]:
    plan = QueuePlan(queue, "bill", "", (), ordering=ordering)

    def read_message(record: ReadyRecord) -> Message:
        return Message(
            record.record.value(),
            queue,
            attempt=record.attempt or 1,
            deaths=record.deaths or 0,
            redelivered=record.redelivered,
        )

    link = KafkaLink(
        plan,
        lane,
        config=config(address, queue, **settings),
        topics=[queue],
        terms=create_terms(
            plan,
            lane,
            prefetch,
            delayed=lambda topic: False,
            due=lambda record: 0.0,
            grace=grace,
        ),
        read_message=read_message,
        forwarder=lambda forwards: [refuse(each) for each in forwards],
    )
    try:
        yield link
    finally:
        link.close()


def read(link: KafkaLink, count: int, timeout: float = 20.0) -> list[Delivery]:
    found: list[Delivery] = []
    try:
        with gevent.Timeout(timeout):
            while len(found) < count:
                found += link.read(count - len(found))
    except gevent.Timeout:
        pytest.fail(f"{count} wanted, there are {bodies(found)}; {state(link)}")
    return found


def state(link: KafkaLink) -> dict[str, object]:
    """Return what the link's native thread has, and waits for."""
    thread, shared = link._consumer._consumer_thread, link._consumer._shared
    partitions = {
        repr(each): [
            len(each.buffer),
            len(each.awaiting_commit),
            each.unsettled,
            each.committed,
        ]
        for each in thread._assignment.partitions.values()
    }
    since = time.monotonic() - shared.last_seen
    admin = AdminClient({"bootstrap.servers": thread._config["bootstrap.servers"]})
    group = thread._config["group.id"]
    known = admin.describe_consumer_groups([group])[group].result(10)
    return {
        "group": f"{known.state}, {[each.member_id for each in known.members]}",
        "round": f"{since:.1f} s ago",
        "partitions": partitions,
        "unanswered": len(thread._commits.unanswered),
        "away": thread.outage.is_possible,
        "told": list(shared.log_lines),
    }


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.message.raw for delivery in deliveries]


def test_what_is_acknowledged_in_the_lane_is_committed_before_the_next_one_comes(
    kafka: Kafka, queue: str
) -> None:
    """If the next suspect killed the process, this one would be charged again."""
    produce(kafka.address, queue, numbers(3))
    with linked(kafka.address, queue, lane=Lane.SUSPECTS, prefetch=1) as link:
        for _ in range(3):
            found = read(link, 1)
            link.ack(found)
            record = t.cast(ReadyRecord, found[0].tag)
            assert record.partition.has_committed(record.offset)


def test_what_is_acknowledged_or_forwarded_is_committed(
    kafka: Kafka, queue: str
) -> None:
    produce(kafka.address, queue, numbers(5))
    refused = ValueError("no")

    def refuse(forward: Forward) -> Exception | None:
        return refused if forward.delivery.message.raw == b"3" else None

    group = Group(kafka.address, queue, queue, 1)
    with linked(kafka.address, queue, refuse=refuse) as link:
        found = read(link, 5)
        link.keep_alive()
        link.ack(found[:2])
        forwards = [Forward(each, Lane.DEAD, {}) for each in found[2:4]]
        assert link.forward(forwards) == [None, refused]
        group.await_offsets(3)
        group.await_metadata(upto=2)
        assert not any(delivery.stale for delivery in found)
    assert all(delivery.stale for delivery in found)
    group.await_offsets(3)
    group.await_metadata()


def test_a_suspect_has_left_its_queue_once_it_is_forwarded(
    kafka: Kafka, queue: str
) -> None:
    """Only for suspects a forward waits until the broker has the commit."""
    produce(kafka.address, queue, numbers(4))
    with linked(kafka.address, queue, refuse=lambda forward: None) as link:
        found = read(link, 4)
        for number in (2, 0, 1):
            assert link.forward([Forward(found[number], Lane.SUSPECTS, {})]) == [None]
            partition = found[number].tag.partition
            assert partition.has_committed(found[number].tag.offset)
        assert not partition.has_committed(found[3].tag.offset)


def test_a_delivery_of_a_partition_that_leaves_is_not_begun(
    kafka: Kafka, queue: str
) -> None:
    produce(kafka.address, queue, numbers(40), partition=lambda n: n % PARTITIONS)
    with linked(kafka.address, queue, prefetch=40) as first:
        found = read(first, 40)
        assert all(delivery.try_start() for delivery in found)
        with linked(kafka.address, queue) as second:
            wait_for(lambda: any(d.tag.partition.leaving for d in found))
            begun = [delivery for delivery in found if delivery.try_start()]
            unbegun = [delivery for delivery in found if delivery.stale]
            assert len(begun) + len(unbegun) == 40
            # No handler has them: so they do not wait for one, and go elsewhere.
            taken = read(second, len(unbegun))
            assert sorted(bodies(taken)) == sorted(bodies(unbegun))
            assert not any(d.message.redelivered for d in taken)
            assert not first.closed
            assert not any(delivery.stale for delivery in begun)
            assert first.may_starve


def test_a_wait_ends_with_the_link_and_a_pause(kafka: Kafka, queue: str) -> None:
    with linked(kafka.address, queue) as link:
        reading = gevent.spawn(link.read, 1)
        gevent.sleep(0)
        began = time.monotonic()
        link.close()
        reading.join(10)
        assert list(reading.value) == []
        assert time.monotonic() - began < 3
        assert list(link.read(1)) == []
        link.keep_alive()


def test_what_is_given_back_at_a_stop_is_not_redelivered(
    kafka: Kafka, queue: str
) -> None:
    produce(kafka.address, queue, numbers(4))
    group = Group(kafka.address, queue, queue, 1)
    with linked(kafka.address, queue) as link:
        begun, *unbegun = read(link, 4)
        link.pause()
        link.release(unbegun)
        assert all(delivery.stale for delivery in unbegun)
        assert list(link.read(5)) == []
        group.await_metadata(upto=1)
        link.ack([begun])
    with linked(kafka.address, queue) as link:
        found = read(link, 3)
        assert bodies(found) == [b"1", b"2", b"3"]
        assert not any(delivery.message.redelivered for delivery in found)


def test_a_postponed_delivery_comes_again_as_the_next_attempt(
    kafka: Kafka, queue: str
) -> None:
    produce(kafka.address, queue, numbers(2))
    with linked(kafka.address, queue, ordering="partition") as link:
        assert link.keeps_order
        (first,) = read(link, 1)
        link.postpone(first, 2, 0.1)
        assert first.stale
        (again,) = read(link, 1)
        assert (again.message.raw, again.message.attempt) == (b"0", 2)
        link.ack([again])
        assert bodies(read(link, 1)) == [b"1"]


def test_the_lane_of_suspects_is_in_no_order_and_one_by_one(
    kafka: Kafka, queue: str
) -> None:
    produce(kafka.address, queue, numbers(9), partition=lambda n: n % PARTITIONS)
    group = Group(kafka.address, queue, queue, PARTITIONS)
    with linked(
        kafka.address, queue, ordering="key", lane=Lane.SUSPECTS, prefetch=1
    ) as link:
        assert not link.keeps_order
        for _ in range(9):
            (suspect,) = read(link, 1)
            partition = suspect.tag.partition.number
            assert group.metadata(partition)["upto"] == 1
            others = [n for n in range(PARTITIONS) if n != partition]
            assert not any(group.metadata(n) for n in others)
            link.ack([suspect])


def _fails(call: t.Callable[[], object]) -> bool:
    try:
        call()
    except BrokerError:
        return True
    return False


def test_a_client_that_hangs_is_left_and_a_broker_that_ends_is_told(
    own_kafka: Kafka,
) -> None:
    own_kafka.create_topics({"work": 2})
    produce(own_kafka.address, "work", numbers(6))
    with linked(own_kafka.address, "work", session_timeout_ms=1500) as link:
        link.ack(read(link, 1))
        Group(own_kafka.address, "work", "work", 1).await_offsets(1)
        own_kafka.freeze()
        began = time.monotonic()
        link.close()
        # A subscription waits for five.
        assert time.monotonic() - began < 4.8
        own_kafka.thaw()
        # It ends by itself as soon as it can.
        assert link._consumer._native_thread.join(20)

    # Its controller had taken it for dead, and it leads nothing before that is over.
    own_kafka.await_ready()
    with linked(own_kafka.address, "work", session_timeout_ms=1500) as link:
        held = read(link, 3)
        own_kafka.kill()
        wait_for(lambda: _fails(link.keep_alive), timeout=30)
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            link.read(1)
        began = time.monotonic()
        link.close()
        assert time.monotonic() - began < 4.8
        assert all(delivery.stale for delivery in held)
        assert {d.identity for d in held} == {"work/0/1", "work/0/2", "work/0/3"}
        assert link.fetched_ids == {"work/0/4", "work/0/5"}
    own_kafka.start()
    # It was no stop: they are known to have been in flight.
    with linked(own_kafka.address, "work", session_timeout_ms=1500) as link:
        found = read(link, 5)
        assert {delivery.identity for delivery in held} < {d.identity for d in found}
        assert all(delivery.message.redelivered for delivery in found)
