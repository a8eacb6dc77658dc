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
from .shop import Shop
from .shop import outgoing
from .shop import plan
from .shop import read
from .shop import shop

ONE_PARTITION = {"partitions": 1}


def status(it: Shop) -> QueueStatus:
    (found,) = it.broker.read_backlog([it.plan], 10.0)
    return found


def test_the_lag_has_also_what_is_done_out_of_order(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with shop(kafka.url, plan(queue), transport_options=ONE_PARTITION) as it:
        it.publish(*(outgoing(queue, b"%d" % n) for n in range(10)))
        assert (status(it).waiting, status(it).lag) == (10, 10)
        link = it.link()
        found = read(link, 10)
        link.ack(found[4:])
        wait_for(lambda: status(it).waiting == 4, 10)
        assert status(it).lag == 10
        link.ack(found[:4])
        wait_for(lambda: (status(it).waiting, status(it).lag) == (0, 0), 10)


def test_the_oldest_of_all_partitions_counts(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    first = time.time() - 1_000
    with shop(kafka.url, plan(queue)) as it:
        for number, key in enumerate(["a", "b", "c", "d", "e", "f"]):
            it.publish(outgoing(queue, key=key, timestamp=first + number))
        assert status(it).oldest == pytest.approx(first, abs=0.01)
        link = it.link()
        found = read(link, 6)
        assert len({each.message.properties["partition"] for each in found}) == 2
        done = [each for each in found if each.message.key == "a"]
        link.ack(done)
        wait_for(lambda: status(it).waiting == 5, 10)
        assert status(it).oldest == pytest.approx(first + 1, abs=0.01)


def test_a_retry_waits_from_now_on(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    with shop(kafka.url, plan(queue), transport_options=ONE_PARTITION) as it:
        it.publish(outgoing(queue, timestamp=time.time() - 1_000))
        link = it.link()
        (delivery,) = read(link, 1)
        began = time.time()
        retry = Forward(delivery, Lane.MAIN, delivery.message.headers)
        assert link.forward([retry]) == [None]
        wait_for(lambda: (status(it).oldest or 0) >= began - 0.1, 10)


def test_records_that_kafka_has_deleted_do_not_wait(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = f"{kafka_prefix}billing"
    with shop(kafka.url, plan(queue), transport_options=ONE_PARTITION) as it:
        it.publish(*(outgoing(queue, b"%d" % n) for n in range(3)))
        link = it.link()
        link.ack(read(link, 3)[:1])
        wait_for(lambda: status(it).waiting == 2, 10)
        link.close()
        delete_records(kafka, queue, 2)
        assert (status(it).waiting, status(it).lag) == (1, 1)
        assert status(it).oldest is not None


def delete_records(kafka: Kafka, topic: str, before: int) -> None:
    from confluent_kafka import TopicPartition

    admin = AdminClient({"bootstrap.servers": kafka.url.rpartition("/")[2]})
    (future,) = admin.delete_records([TopicPartition(topic, 0, before)]).values()
    wait_for(future.done, 20)
    assert future.result().low_watermark == before


def test_a_record_is_read_once_for_its_time(kafka: Kafka, kafka_prefix: str) -> None:
    queue = f"{kafka_prefix}billing"
    with shop(kafka.url, plan(queue), transport_options=ONE_PARTITION) as it:
        it.publish(outgoing(queue))
        oldest = status(it).oldest
        times = it.broker._backlog_reader._times  # type: ignore[attr-defined]
        (known,) = times.values()
        times[(queue, 0)] = known._replace(written_at=5.0)
        assert oldest is not None
        assert status(it).oldest == 5.0
