"""Where groups on Kafka begin: new ones, and those that have lost their offsets."""

from __future__ import annotations

import logging
import typing as t

import pytest
from confluent_kafka import admin as _admin

from flask_qconsume.brokers.kafka.broker import Kafka as KafkaBroker
from flask_qconsume.brokers.kafka.client.admin import KafkaAdmin

from ...servers.kafka import Kafka
from ...waiting import wait_for
from .client.tools import Group
from .client.tools import consuming
from .client.tools import numbers
from .client.tools import produce
from .client.tools import take
from .client.tools import values
from .tools import QUICKLY
from .tools import LinkedBroker
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read

_NewPartitions: t.Any = t.cast(t.Any, _admin).NewPartitions


def beginning(where: str) -> dict[str, t.Any]:
    """Return the options for groups that begin there."""
    consumer = {**QUICKLY["kafka_consumer_config"], "auto.offset.reset": where}
    return {"kafka_consumer_config": consumer}


def bodies(linked: LinkedBroker, count: int) -> set[bytes]:
    """Settle the first messages, and return their bodies."""
    link = linked.link()
    found = read(link, count)
    link.ack(found)
    link.close()
    return {delivery.message.raw for delivery in found}


def grow(kafka: Kafka, topic: str, partitions: int) -> None:
    admin = kafka.admin()
    wanted = [_NewPartitions(topic, partitions)]
    for future in admin.create_partitions(wanted).values():
        future.result(10)

    def is_led() -> bool:
        found = admin.list_topics(topic, timeout=10).topics[topic].partitions
        return len(found) == partitions and all(p.leader >= 0 for p in found.values())

    wait_for(is_led)


def forget_offsets(kafka: Kafka, group: str) -> None:
    """Delete offsets, as Kafka does for a group without members after a while."""
    admin = kafka.admin()

    def is_gone() -> bool:
        found = admin.delete_consumer_groups([group])
        return all(future.exception(10) is None for future in found.values())

    wait_for(is_gone)  # Its last member may be about to leave.


def test_what_is_younger_than_a_group_at_the_end_is_read_from_its_first_record(
    kafka: Kafka, kafka_prefix: str
) -> None:
    topic, pattern = f"{kafka_prefix}orders", f"{kafka_prefix}event.#"
    kafka.create_topics({topic: 1})
    produce(kafka.address, topic, [b"before"])
    options = beginning("latest")
    wanted = plan(f"{kafka_prefix}group", topic, pattern)

    with linked_broker(kafka.url, wanted, transport_options=options) as linked:
        linked.broker.declare()
    grow(kafka, topic, 2)
    produce(kafka.address, topic, [b"new partition"], partition=1)
    kafka.create_topics({f"{kafka_prefix}event.moved": 1})
    produce(kafka.address, f"{kafka_prefix}event.moved", [b"new topic"])

    with linked_broker(kafka.url, wanted, transport_options=options) as linked:
        assert bodies(linked, 2) == {b"new partition", b"new topic"}


def test_a_topic_made_anew_under_a_running_group_at_the_end_loses_nothing(
    kafka: Kafka, kafka_prefix: str
) -> None:
    topic = f"{kafka_prefix}orders"
    kafka.create_topics({topic: 1})
    produce(kafka.address, topic, numbers(5))
    options = beginning("latest")
    wanted = plan(f"{kafka_prefix}group", topic)
    with linked_broker(kafka.url, wanted, transport_options=options) as linked:
        link = linked.link()
        linked.publish(outgoing(topic, b"old"))
        link.ack(read(link, 1))
        kafka.delete_topics(topic)
        wait_for(lambda: topic not in kafka.topics())
        kafka.create_topics({topic: 1})
        produce(kafka.address, topic, [b"new"])
        assert [d.message.raw for d in read(link, 1, 60)] == [b"new"]


def test_what_is_published_after_any_declare_is_for_a_group_at_the_end(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue, options = f"{kafka_prefix}billing", beginning("latest")
    with linked_broker(kafka.url, plan(queue), transport_options=options) as linked:
        linked.broker.declare()
        linked.publish(outgoing(queue, b"first"))
    with linked_broker(kafka.url, plan(queue), transport_options=options) as linked:
        linked.broker.declare()
        linked.publish(outgoing(queue, b"second"))
        assert bodies(linked, 2) == {b"first", b"second"}


def test_what_is_sent_to_a_queue_by_its_name_is_for_a_group_at_the_end_too(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.publish(outgoing(queue, b"ours", exchange=""))
    options = beginning("latest")
    with linked_broker(kafka.url, plan(queue), transport_options=options) as linked:
        assert bodies(linked, 1) == {b"ours"}


@pytest.mark.parametrize("declare", ["passive", "never"])
def test_where_nothing_is_declared_a_group_at_the_end_begins_with_its_first_worker(
    kafka: Kafka, kafka_prefix: str, declare: str
) -> None:
    queue, options = f"{kafka_prefix}billing", beginning("latest")
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.publish(outgoing(queue, b"before"))
    with linked_broker(
        kafka.url, plan(queue), transport_options=options, declare=declare
    ) as linked:
        linked.link().close()
        linked.publish(outgoing(queue, b"after"))
        assert bodies(linked, 1) == {b"after"}


@pytest.mark.parametrize("where", ["earliest", "latest"])
def test_a_group_without_its_offsets_logs_a_warning_and_loses_nothing(
    kafka: Kafka, kafka_prefix: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue, options = f"{kafka_prefix}billing", beginning(where)
    with linked_broker(kafka.url, plan(queue), transport_options=options) as linked:
        linked.broker.declare()
        linked.publish(outgoing(queue, b"handled"))
        assert bodies(linked, 1) == {b"handled"}
        linked.publish(outgoing(queue, b"unread"))
    assert "has no offsets" not in caplog.text
    forget_offsets(kafka, queue)

    with (
        caplog.at_level(logging.WARNING),
        linked_broker(kafka.url, plan(queue)) as linked,
    ):
        assert bodies(linked, 2) == {b"handled", b"unread"}
    assert caplog.text.count(f"no offsets of the group '{queue}' any more") == 1
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.link()
    assert caplog.text.count("no offsets of the group") == 1


def test_a_new_group_waits_for_no_fetch_to_learn_where_it_begins(
    kafka: Kafka, kafka_prefix: str
) -> None:
    """Its first record used to come half a second late, or more."""
    topic, queue = f"{kafka_prefix}orders", f"{kafka_prefix}billing"
    kafka.create_topics({topic: 2})
    produce(kafka.address, topic, [b"before"], partition=1)
    with linked_broker(kafka.url, plan(queue, topic)) as linked:
        assert [d.message.raw for d in read(linked.link(), 1)] == [b"before"]
        # Of the partition where nothing is nothing was read that it would commit.
        Group(kafka.address, queue, topic, 2).await_offsets(0, 0)


def test_a_group_that_has_nothing_to_read_is_not_taken_for_one_without_offsets(
    kafka: Kafka, kafka_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = f"{kafka_prefix}billing"
    for _ in range(2):
        with linked_broker(kafka.url, plan(queue)) as linked:
            linked.link()
            assert linked.letters() == []
    assert "no offsets" not in caplog.text


def test_a_group_that_has_members_is_left_as_it_is(
    kafka: Kafka, kafka_prefix: str
) -> None:
    topic = f"{kafka_prefix}orders"
    kafka.create_topics({topic: 1})
    produce(kafka.address, topic, numbers(3))
    admin = KafkaAdmin({"bootstrap.servers": kafka.address})
    group = Group(kafka.address, topic, topic, 1)
    assert admin.commit(topic, {(topic, 0): 1}, 10)
    with consuming(kafka.address, topic, topic) as consumer:
        assert values(take(consumer, 2)) == [b"1", b"2"]
        assert not admin.commit(topic, {(topic, 0): 3}, 10)
        assert group.offsets() == [1]
    admin.close()


def test_a_group_is_begun_and_looked_at_once_in_a_process(
    kafka: Kafka, kafka_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(kafka.url, plan(queue)) as linked:
        linked.link().close()
        wait_for(lambda: not caplog.records)
        forget_offsets(kafka, queue)
        linked.link()
        starts = t.cast(KafkaBroker, linked.broker)._group_starts
        assert starts._checked_groups == {queue}
    assert "no offsets" not in caplog.text
