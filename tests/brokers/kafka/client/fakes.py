"""Records, partitions and a client for tests that need no Kafka."""

from __future__ import annotations

import typing as t

from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from flask_qconsume.brokers.kafka.client.offsets import OffsetTracker
from flask_qconsume.brokers.kafka.client.partition import AssignedPartition
from flask_qconsume.brokers.kafka.client.partition import ReadyRecord


class Fetched(t.NamedTuple):
    """A fetched record, as far as the tested code reads it."""

    number: int
    named: bytes | None = None
    size: int = 10

    def key(self) -> bytes | None:
        return self.named

    def offset(self) -> int:
        return self.number

    def __len__(self) -> int:
        return self.size


def new_partition(number: int = 0, **options: t.Any) -> AssignedPartition:
    return AssignedPartition("orders", number, OffsetTracker(), **options)


def records_of(partition: AssignedPartition, *keys: bytes | None) -> list[ReadyRecord]:
    return [ReadyRecord(partition, n, Fetched(n, key)) for n, key in enumerate(keys)]


def filled(one: AssignedPartition, count: int, **options: t.Any) -> AssignedPartition:
    for number in range(count):
        one.add_fetched(Fetched(number, **options))
    return one


class Client:
    """The calls that flow control and commits make of a client."""

    def __init__(self) -> None:
        self.paused: set[int] = set()
        self.fails: KafkaError | None = None
        self.commits: list[list[TopicPartition]] = []

    def pause(self, places: list[TopicPartition]) -> None:
        self._check()
        self.paused |= {place.partition for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self._check()
        self.paused -= {place.partition for place in places}

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self._check()
        self.commits.append(offsets)

    def _check(self) -> None:
        if self.fails is not None:
            raise KafkaException(self.fails)


def client() -> t.Any:
    return Client()
