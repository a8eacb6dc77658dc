"""The offsets from which a consumer reads its partitions.

A partition without a committed offset is read from its first record. If the broker no
longer has the record at an offset, the client reports that ('auto.offset.reset' is
'error'), so that the loss is logged before reading goes on. Runs in the native thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from .client_classes import Consumer
from .partition import AssignedPartition
from .partition import PartitionId

#: Make the client report an offset that is gone, instead of choosing another.
SETTINGS = {"auto.offset.reset": "error"}

#: Seconds that a request may take, and between two requests.
_QUESTION_TIMEOUT_SECONDS = 1.0
_PAUSE_SECONDS = 0.5


class Positions:
    """Sets the offsets from which the client reads; skips deleted records.

    :param strategy: The client's 'partition.assignment.strategy'.
    :param log: Logs a text at a level.
    """

    def __init__(self, strategy: str, log: Callable[[int, str], None]) -> None:
        self._incremental = "cooperative" in strategy
        self._log = log
        self._lost: set[PartitionId] = set()
        self._next_recovery = 0.0

    def start_reading(
        self, consumer: Consumer, committed: Sequence[TopicPartition]
    ) -> None:
        """Read newly assigned partitions, from their committed offsets."""
        for topic_partition in committed:
            if topic_partition.offset < 0:
                topic_partition.offset = OFFSET_BEGINNING
        add = consumer.incremental_assign if self._incremental else consumer.assign
        add(list(committed))

    def add_lost(self, partition: PartitionId) -> None:
        """Remember a partition whose next record Kafka has deleted."""
        self._lost.add(partition)

    def recover_lost(
        self,
        consumer: Consumer,
        partitions: Mapping[PartitionId, AssignedPartition],
    ) -> list[PartitionId]:
        """Go on with partitions whose next records Kafka has deleted.

        :returns: The partitions that were deleted and created again. They are read from
            their first record; the caller must forget their old records.
        """
        if not self._lost or time.monotonic() < self._next_recovery:
            return []
        self._next_recovery = time.monotonic() + _PAUSE_SECONDS
        self._lost.intersection_update(partitions)
        return [
            partition_id
            for partition_id in list(self._lost)
            if self._recover(consumer, partitions, partition_id)
        ]

    def _recover(
        self,
        consumer: Consumer,
        partitions: Mapping[PartitionId, AssignedPartition],
        lost: PartitionId,
    ) -> bool:
        """Go on with a partition; return whether the partition was created again."""
        try:
            watermarks = consumer.get_watermark_offsets(
                TopicPartition(*lost), timeout=_QUESTION_TIMEOUT_SECONDS
            )
        except KafkaException:
            return False  # It may have no leader just now: ask again later.
        first, end = watermarks
        position = partitions[lost].offsets.position
        self._read_from(consumer, partitions, lost, first)
        self._lost.discard(lost)
        recreated = position > end
        text = _describe_recreated if recreated else _describe_deleted
        self._log(logging.WARNING, text(*lost, position, first, end))
        return recreated

    def _read_from(
        self,
        consumer: Consumer,
        partitions: Mapping[PartitionId, AssignedPartition],
        partition: PartitionId,
        offset: int,
    ) -> None:
        """Make the client read a partition from this offset.

        librdkafka cannot seek after an invalid offset, so this assigns the partition
        again.
        """
        topic_partition = TopicPartition(*partition, offset)
        if self._incremental:
            consumer.incremental_unassign([topic_partition])
            consumer.incremental_assign([topic_partition])
        else:
            rest = [
                _next_unread(assigned_partition)
                for key, assigned_partition in partitions.items()
                if key != partition
            ]
            consumer.assign([topic_partition, *rest])
        for assigned_partition in partitions.values():
            # The client may have forgotten which partitions are paused.
            assigned_partition.paused = None


def _next_unread(partition: AssignedPartition) -> TopicPartition:
    position = partition.offsets.position
    offset = OFFSET_BEGINNING if position < 0 else position
    return TopicPartition(partition.topic, partition.number, offset)


def _describe_deleted(
    topic: str, partition: int, position: int, first: int, end: int
) -> str:
    return (
        f"The records {position} to {first - 1} of partition {partition} of the topic"
        f" '{topic}' were deleted unread ({first - position} at the most): the topic's"
        f" retention was over, or they were deleted by hand. Reading goes on at"
        f" {first}. Keep records for longer ('retention.ms', 'retention.bytes'), or"
        " handle them faster."
    )


def _describe_recreated(
    topic: str, partition: int, position: int, first: int, end: int
) -> str:
    return (
        f"Partition {partition} of the topic '{topic}' ends at {end}, though it was"
        f" read up to {position}: the topic was created again, or has lost its"
        f" last records. It is read from its first record, {first}, on."
    )
