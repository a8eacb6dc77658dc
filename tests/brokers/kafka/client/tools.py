"""Helpers for tests of consumers: produce records, read and make commits.

They use the client directly, and block for an instant at a time.
"""

from __future__ import annotations

import contextlib
import json
import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from confluent_kafka import Consumer
from confluent_kafka import Producer
from confluent_kafka import TopicPartition

from flask_qconsume.brokers.kafka.client.consumer import KafkaConsumer
from flask_qconsume.brokers.kafka.client.partition import ReadyRecord
from flask_qconsume.brokers.kafka.client.terms import ConsumerTerms

from ....waiting import wait_for

#: Members that are gone are found gone soon, and new topics found soon.
QUICK = {
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 6000,
    "heartbeat.interval.ms": 200,
    "topic.metadata.refresh.interval.ms": 500,
    "log_level": 0,
}


def config(address: str, group: str, **more: t.Any) -> dict[str, t.Any]:
    more = {name.replace("_", "."): value for name, value in more.items()}
    return {"bootstrap.servers": address, "group.id": group, **QUICK, **more}


def produce(
    address: str,
    topic: str,
    values: t.Iterable[bytes],
    *,
    partition: int | t.Callable[[int], int] = 0,
    key: t.Callable[[bytes], bytes | None] = lambda value: None,
) -> None:
    """Produce records in their order, and wait until the broker has them."""
    producer = Producer({"bootstrap.servers": address, "log_level": 0})
    for number, value in enumerate(values):
        to = partition if isinstance(partition, int) else partition(number)
        producer.produce(topic, value, key(value), to)
    while producer.flush(0.05):
        time.sleep(0)


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@contextlib.contextmanager
def consuming(
    address: str, group: str, *topics: str, room: int = 20, **options: t.Any
) -> Iterator[KafkaConsumer]:
    """Run a consumer that leaves its group in the end."""
    names = {"ahead", "ordering", "delayed", "due", "grace"}
    terms = ConsumerTerms(room, **{k: v for k, v in options.items() if k in names})
    more = {k: v for k, v in options.items() if k not in names}
    consumer = KafkaConsumer(config(address, group, **more), topics, terms)
    consumer.start()
    try:
        yield consumer
    finally:
        consumer.close(10)


def take(
    consumer: KafkaConsumer, count: int = 1, timeout: float = 20.0
) -> list[ReadyRecord]:
    """Take this many records, as soon as they are there."""
    found: list[ReadyRecord] = []
    deadline = time.monotonic() + timeout
    while len(found) < count:
        left = deadline - time.monotonic()
        assert left > 0, f"{len(found)} of {count} came: {values(found)}"
        found += consumer.take(count - len(found)) or []
        if len(found) < count:
            consumer.wait(min(left, 0.5))
    return found


def nothing_comes(consumer: KafkaConsumer, seconds: float = 0.3) -> bool:
    """Return whether there is nothing to take for a while; there is no better proof."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if consumer.take(1):
            return False
        consumer.wait(0.05)
    return True


def values(records: Sequence[ReadyRecord]) -> list[bytes]:
    return [ready.record.value() for ready in records]


class Group:
    """The offsets that a group has committed; a test can commit others."""

    def __init__(self, address: str, group: str, topic: str, partitions: int) -> None:
        self._places = [TopicPartition(topic, n) for n in range(partitions)]
        self._settings = {"bootstrap.servers": address, "group.id": group}
        self._settings |= {"enable.auto.commit": False, "log_level": 0}

    def offsets(self) -> list[int]:
        return [offset for offset, _ in self._committed()]

    def metadata(self, partition: int = 0) -> dict[str, t.Any]:
        text = self._committed()[partition][1]
        return t.cast("dict[str, t.Any]", json.loads(text)) if text else {}

    def await_offsets(self, *wanted: int) -> None:
        wait_for(lambda: self.offsets() == list(wanted), message=self.offsets)

    def await_metadata(self, **wanted: t.Any) -> None:
        expected = {"qconsume": 1, **wanted} if wanted else {}
        wait_for(lambda: self.metadata() == expected, message=self.metadata)

    def commit(self, offset: int, metadata: str, partition: int = 0) -> None:
        """Commit as a consumer does that then dies. The group must have no members."""
        place = self._places[partition]
        offsets = [TopicPartition(place.topic, partition, offset, metadata)]
        with self._client() as client:
            client.commit(offsets=offsets, asynchronous=False)

    def _committed(self) -> list[tuple[int, str]]:
        with self._client() as client:
            found = client.committed(self._places, timeout=10)
        return [(each.offset, each.metadata or "") for each in found]

    @contextlib.contextmanager
    def _client(self) -> Iterator[Consumer]:
        client = Consumer(self._settings)
        try:
            yield client
        finally:
            client.close()
