"""Limits how much is fetched ahead, and pauses partitions. Native thread only."""

from __future__ import annotations

import contextlib
import time

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from .client_classes import Consumer
from .partition import AssignedPartition

#: Maximum bytes of fetched records: without stuck partitions, and with them.
_MAX_BUFFERED_BYTES = 16 * 1024 * 1024
_MAX_BUFFERED_BYTES_IN_ALL = 4 * _MAX_BUFFERED_BYTES
#: Seconds for which buffers may be full before partitions are paused. A pause discards
#: what the client has fetched, and it takes half a second to go on.
_FULL_SECONDS = 1.0
#: Seconds between two checks which partitions are stuck or full.
_LOOK_INTERVAL_SECONDS = 0.05


class FlowControl:
    """Limits the number of fetched records by pausing partitions."""

    def __init__(self) -> None:
        #: Number of records to be fetched next.
        self.room = 1
        #: Bytes of a buffered record, on average.
        self._mean_bytes = _MAX_BUFFERED_BYTES // 16
        self._all_paused = False
        self._full_since: float | None = None
        self._next_flow_check = 0.0

    def update(
        self,
        consumer: Consumer,
        partitions: list[AssignedPartition],
        ahead: int,
        pause_all: bool,
    ) -> None:
        """Pause or resume partitions, to have about ``ahead`` records fetched."""
        readable_partitions = [
            partition for partition in partitions if not partition.is_stuck
        ]
        count = sum(len(partition.buffer) for partition in readable_partitions)
        size = sum(partition.buffered_bytes for partition in readable_partitions)
        in_all = sum(partition.buffered_bytes for partition in partitions)
        self.room = 0
        if size < _MAX_BUFFERED_BYTES and in_all < _MAX_BUFFERED_BYTES_IN_ALL:
            self._mean_bytes = max(1, size // count) if count else self._mean_bytes
            room = (_MAX_BUFFERED_BYTES - size) // self._mean_bytes
            self.room = min(ahead - count, room)
        now = time.monotonic()
        if now < self._next_flow_check:
            return
        self._next_flow_check = now + _LOOK_INTERVAL_SECONDS
        for partition in partitions:
            partition.update_stuck(now)
        enough = count > ahead // 2 or size > _MAX_BUFFERED_BYTES // 2
        too_much = count > 2 * ahead or size > 2 * _MAX_BUFFERED_BYTES
        self._decide(now, enough, pause_all or too_much)
        for partition in partitions:
            _set_paused(consumer, partition, self._all_paused or partition.is_stuck)

    def _decide(self, now: float, enough: bool, at_once: bool) -> None:
        if self.room > 0:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        if at_once or (self._full_since and now - self._full_since > _FULL_SECONDS):
            self._all_paused = True
        elif not enough:
            self._all_paused = False


def _set_paused(consumer: Consumer, partition: AssignedPartition, paused: bool) -> None:
    """Pause or resume fetching from a partition.

    Do not call this in a callback of the client: during a rebalance, ``pause`` and
    ``resume`` of the client may never return.
    """
    if partition.paused is paused:
        return
    place = [TopicPartition(partition.topic, partition.number)]
    # The client may have lost the partition meanwhile.
    with contextlib.suppress(KafkaException):
        (consumer.pause if paused else consumer.resume)(place)
        partition.paused = paused
