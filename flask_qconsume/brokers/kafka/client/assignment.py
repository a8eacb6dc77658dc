"""The partitions that the group has assigned to a consumer. Native thread only."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .commits import OffsetCommits
from .offsets import OffsetTracker
from .partition import AssignedPartition
from .partition import PartitionId
from .shared_state import SharedState
from .terms import ConsumerTerms


class Assignment:
    """The assigned partitions; chooses the records that are handed out next."""

    def __init__(
        self, terms: ConsumerTerms, shared: SharedState, commits: OffsetCommits
    ) -> None:
        self.partitions: dict[PartitionId, AssignedPartition] = {}
        #: Set when a partition is added; reset by the thread's loop.
        self.has_news = False
        self._terms = terms
        self._shared = shared
        self._commits = commits
        self._first_partition = 0

    def add(
        self, topic: str, number: int, committed: int | None, metadata: str
    ) -> AssignedPartition:
        """Add a partition, with the offset and metadata that its group committed."""
        self.has_news = True
        partition = self.partitions[topic, number] = AssignedPartition(
            topic,
            number,
            OffsetTracker(committed, metadata),
            due=self._terms.due if self._terms.delayed(topic) else None,
            suspects_alone=self._terms.ordering != "none",
        )
        return partition

    def drop(self, ids: Sequence[PartitionId]) -> None:
        """Remove partitions; their records are stale from now on."""
        dropped = [
            self.partitions.pop(partition_id)
            for partition_id in ids
            if partition_id in self.partitions
        ]
        for partition in dropped:
            partition.leaving = partition.gone = True
            self._shared.gone.append(partition)
        self._shared.notify()

    def reset(self, partition: PartitionId) -> AssignedPartition:
        """Replace a partition by one without records and without an offset."""
        self.drop([partition])
        return self.add(*partition, None, "")

    def apply_requests(self) -> None:
        """Settle, annotate and release the records that greenlets have named."""
        shared = self._shared
        while shared.settled:
            for record in shared.settled.popleft():
                partition = record.partition
                if partition.gone:
                    shared.stale_count += 1
                elif partition.offsets.settle(record.offset):
                    partition.settled_count += 1
                    partition.is_uncommitted = True
                    self._commits.settled_count += 1
        while shared.notes:
            record, note = shared.notes.popleft()
            record.partition.offsets.annotate(record.offset, note)
            record.partition.is_uncommitted = True
        while shared.released:
            for record in shared.released.popleft():
                record.partition.offsets.release(record.offset)
                record.partition.is_uncommitted = True

    def mark(self, partitions: list[AssignedPartition]) -> None:
        """Choose the next records to hand out, from the partitions in turn."""
        room = self._commits.room + self._shared.extra_room
        free = room - sum(
            partition.unsettled - partition.blocked_count for partition in partitions
        )
        ready = [
            partition
            for partition in partitions
            if partition.buffer and not partition.leaving
        ]
        if not ready or free <= 0:
            return
        self._first_partition = (self._first_partition + 1) % len(ready)
        share = max(1, free // len(ready))
        now = time.time()
        for partition in (
            ready[self._first_partition :] + ready[: self._first_partition]
        ):
            limit = self._commits.room_in(partition)
            # One suspect at a time in the whole process: its death counts for each.
            may_try = not partition.suspects_alone or not self._would_count_death()
            room = min(share, free, limit)
            free -= partition.mark(room, now, may_try_suspect=may_try)

    def _would_count_death(self) -> bool:
        return any(
            partition.would_count_death for partition in list(self.partitions.values())
        )
