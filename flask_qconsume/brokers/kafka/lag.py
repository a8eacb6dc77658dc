"""The lag of consumer groups: the number of unhandled records, and the first one."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterable
from collections.abc import Mapping

from confluent_kafka import TopicPartition

from ...broker.base import SuspectsStatus
from ...broker.headers import find_oldest_suspect
from ...broker.topology import QueuePlan
from . import naming
from . import records
from .client.admin import Committed
from .client.admin import KafkaAdmin
from .client.calls import call_in_thread
from .client.calls import create_client
from .client.client_classes import Consumer
from .client.offsets import decode_metadata
from .client.partition import PartitionId
from .records import Fetched
from .topics import DEFAULT_TIMEOUT_SECONDS
from .topics import Topics

#: Seconds that peeking takes; records that arrive later are left out.
_PEEK_TIMEOUT_SECONDS = 3.0
_POLL_SECONDS = 0.1


class Backlog:
    """Counts the messages of an app's queues that no worker has handled yet.

    :param settings: librdkafka's settings, for a consumer.
    """

    def __init__(
        self, admin: KafkaAdmin, topics: Topics, settings: Mapping[str, t.Any]
    ) -> None:
        self._admin = admin
        self._topics = topics
        self._settings = settings

    def count_waiting(self, plan: QueuePlan) -> int:
        """Count the unhandled messages of a queue, delayed messages included."""
        return self._count(plan.name, self._topics_of(plan))

    def count_suspects(self, plan: QueuePlan) -> int:
        """Count a queue's suspects: messages in flight when their process died."""
        return self._count(plan.suspects, {naming.suspects_topic(plan.name)})

    def count_foreign(self, group: str) -> int:
        """Count the records that another program's consumer group has not handled."""
        topics = self._topics.look()
        timeout = DEFAULT_TIMEOUT_SECONDS
        return count_lag(self._admin, group, topics, timeout, only_committed=True)

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        """Count a queue's suspects, and find the time since which the oldest waits.

        A suspect is a message that was in flight when a process died.
        """
        topic = naming.suspects_topic(plan.name)
        topics = {topic: self._topics.look().get(topic, 0)}
        timeout = DEFAULT_TIMEOUT_SECONDS
        waiting = count_lag(self._admin, plan.suspects, topics, timeout)
        if not waiting:
            return SuspectsStatus(0)
        first = find_unhandled(self._admin, plan.suspects, topics, timeout)
        messages = (
            records.read_record(record, plan.suspects, redelivered=False)
            for record in peek_records(self._settings, first)
        )
        return SuspectsStatus(waiting, find_oldest_suspect(messages))

    def _topics_of(self, plan: QueuePlan) -> set[str]:
        return {name for name in self._topics.look() if naming.is_read_by(plan, name)}

    def _count(self, group: str, wanted: t.AbstractSet[str]) -> int:
        """Count the records in some topics that a consumer group has not handled."""
        partition_counts = self._topics.known
        topics = {
            name: number for name, number in partition_counts.items() if name in wanted
        }
        return count_lag(self._admin, group, topics, DEFAULT_TIMEOUT_SECONDS)


def count_lag(
    admin: KafkaAdmin,
    group: str,
    topics: Mapping[str, int],
    timeout: float,
    only_committed: bool = False,
) -> int:
    """Count the records that a consumer group has not handled yet.

    :param topics: The topics that the group reads, and how many partitions each has.
    :param only_committed: Whether to count only partitions for which the group has
        committed an offset.
    """
    all_partitions = set(_partitions(topics))
    committed = admin.read_committed(group, all_partitions, timeout)
    partitions = set(committed) if only_committed else all_partitions
    ends = admin.find_ends(partitions, timeout)
    first = admin.find_beginnings(partitions - set(committed), timeout)
    return sum(
        count_left(
            committed.get(partition) or Committed(first.get(partition, end), ""), end
        )
        for partition, end in ends.items()
    )


def find_unhandled(
    admin: KafkaAdmin, group: str, topics: Mapping[str, int], timeout: float
) -> dict[PartitionId, int]:
    """Return each partition's first offset that is not handled, if there is any."""
    all_partitions = set(_partitions(topics))
    committed = admin.read_committed(group, all_partitions, timeout)
    ends = admin.find_ends(all_partitions, timeout)
    first = admin.find_beginnings(all_partitions - set(committed), timeout)
    first_unhandled = {
        **first,
        **{partition: commit.offset for partition, commit in committed.items()},
    }
    return {
        partition: offset
        for partition, offset in first_unhandled.items()
        if offset < ends.get(partition, 0)
    }


def peek_records(
    settings: Mapping[str, t.Any], offsets: Mapping[PartitionId, int]
) -> list[Fetched]:
    """Read one record of each partition, at the given offset or behind it.

    :param settings: librdkafka's settings, for a consumer.
    """
    if not offsets:
        return []
    timeout = 2 * _PEEK_TIMEOUT_SECONDS
    return call_in_thread(lambda: _peek(settings, offsets), timeout)


def _peek(
    settings: Mapping[str, t.Any], offsets: Mapping[PartitionId, int]
) -> list[Fetched]:
    consumer = create_client(Consumer, {**settings, "fetch.wait.max.ms": 10})
    deadline = time.monotonic() + _PEEK_TIMEOUT_SECONDS
    records_by_partition: dict[PartitionId, Fetched] = {}
    try:
        consumer.assign(
            [TopicPartition(*partition, at) for partition, at in offsets.items()]
        )
        while len(records_by_partition) < len(offsets) and time.monotonic() < deadline:
            record: Fetched = consumer.poll(_POLL_SECONDS)
            if record is not None and record.error() is None:
                records_by_partition.setdefault(
                    (record.topic(), record.partition()), record
                )
        return list(records_by_partition.values())
    finally:
        consumer.close()


def count_left(committed: Committed, end: int) -> int:
    """Count a partition's unhandled records from its committed offset on."""
    done = decode_metadata(committed.metadata, committed.offset).done
    handled = sum(stop - start for start, stop in done)
    return max(0, end - committed.offset - handled)


def _partitions(topics: Mapping[str, int]) -> Iterable[PartitionId]:
    return ((name, n) for name, number in topics.items() for n in range(number))
