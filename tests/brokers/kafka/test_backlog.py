"""The status of queues, on a real Kafka."""

from __future__ import annotations

import time

import pytest
from confluent_kafka.admin import AdminClient

from flask_qconsume.broker.base import QueueStatus
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane

from ...servers import Kafka
from ...waiting import wait_for
from .tools import LinkedBroker
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read

ONE_PARTITION = {"partitions": 1}


def status(linked: LinkedBroker) -> QueueStatus:
    (found,) = linked.broker.read_backlog([linked.plan], 10.0)
    return found


def test_the_lag_has_also_what_is_done_out_of_order(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(
        kafka.url, plan(queue), transport_options=ONE_PARTITION
    ) as linked:
        linked.publish(*(outgoing(queue, b"%d" % n) for n in range(10)))
        assert (status(linked).waiting, status(linked).lag) == (10, 10)
        link = linked.link()
        found = read(link, 10)
        link.ack(found[4:])
        wait_for(lambda: status(linked).waiting == 4, 10)
        assert status(linked).lag == 10
        link.ack(found[:4])
        wait_for(lambda: (status(linked).waiting, status(linked).lag) == (0, 0), 10)


def test_the_oldest_of_all_partitions_counts(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    first = time.time() - 1_000
    with linked_broker(kafka.url, plan(queue)) as linked:
        for number, key in enumerate(["a", "b", "c", "d", "e", "f"]):
            linked.publish(outgoing(queue, key=key, timestamp=first + number))
        assert status(linked).oldest == pytest.approx(first, abs=0.01)
        link = linked.link()
        found = read(link, 6)
        assert len({each.message.properties["partition"] for each in found}) == 2
        done = [each for each in found if each.message.key == "a"]
        link.ack(done)
        wait_for(lambda: status(linked).waiting == 5, 10)
        assert status(linked).oldest == pytest.approx(first + 1, abs=0.01)


def test_a_retry_waits_from_now_on(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(
        kafka.url, plan(queue), transport_options=ONE_PARTITION
    ) as linked:
        linked.publish(outgoing(queue, timestamp=time.time() - 1_000))
        link = linked.link()
        (delivery,) = read(link, 1)
        began = time.time()
        retry = Forward(delivery, Lane.MAIN, delivery.message.headers)
        assert link.forward([retry]) == [None]
        wait_for(lambda: (status(linked).oldest or 0) >= began - 0.1, 10)


def test_records_that_kafka_has_deleted_do_not_wait(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(
        kafka.url, plan(queue), transport_options=ONE_PARTITION
    ) as linked:
        linked.publish(*(outgoing(queue, b"%d" % n) for n in range(3)))
        link = linked.link()
        link.ack(read(link, 3)[:1])
        wait_for(lambda: status(linked).waiting == 2, 10)
        link.close()
        delete_records(kafka, queue, 2)
        assert (status(linked).waiting, status(linked).lag) == (1, 1)
        assert status(linked).oldest is not None


def delete_records(kafka: Kafka, topic: str, before: int) -> None:
    from confluent_kafka import TopicPartition

    admin = AdminClient({"bootstrap.servers": kafka.url.rpartition("/")[2]})
    (future,) = admin.delete_records([TopicPartition(topic, 0, before)]).values()
    wait_for(future.done, 20)
    assert future.result().low_watermark == before


def test_a_record_is_read_once_for_its_time(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    with linked_broker(
        kafka.url, plan(queue), transport_options=ONE_PARTITION
    ) as linked:
        linked.publish(outgoing(queue))
        oldest = status(linked).oldest
        times = linked.broker._backlog_reader._times  # type: ignore[attr-defined]
        (known,) = times.values()
        times[(queue, 0)] = known._replace(written_at=5.0)
        assert oldest is not None
        assert status(linked).oldest == 5.0
