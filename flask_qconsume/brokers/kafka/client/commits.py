"""Commits of offsets and metadata, one at a time. Used by the native thread only.

Before a record is handed out, a commit notes it as in flight: if the process dies
meanwhile, the next owner of the partition knows which records may have killed it. The
same commits contain the settled records.
"""

from __future__ import annotations

import logging
import time
from itertools import chain

from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from .client_classes import Consumer
from .errors import describe_trouble
from .offsets import CommitState
from .partition import AssignedPartition
from .partition import PartitionId
from .partition import ReadyRecord
from .shared_state import SharedState
from .terms import ConsumerTerms

#: Seconds between two commits, and before a failed commit is repeated.
_COMMIT_INTERVAL_SECONDS = 0.02
_RETRY_SECONDS = 0.1
#: Maximum number of records that are marked and not settled.
_MAX_UNSETTLED = 5_000
#: Maximum number of such records in one partition with the ordering "key".
_MAX_UNSETTLED_PER_PARTITION = 1_000

#: Errors of a commit during a rebalance. It is repeated, unless the partition is gone.
_REBALANCING = {
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError._NO_OFFSET,
    KafkaError._STATE,
    KafkaError._WAIT_COORD,
}


class OffsetCommits:
    """Commits which records are in flight or done; then hands records out."""

    def __init__(self, terms: ConsumerTerms, shared: SharedState) -> None:
        #: Number of records that were settled since the last commit.
        self.settled_count = 0
        #: Number of records that may be marked and unsettled at once.
        self.room = terms.room
        self._terms = terms
        self._shared = shared
        self._pending: dict[
            PartitionId, tuple[AssignedPartition, CommitState, list[ReadyRecord]]
        ] = {}
        self._next_commit = 0.0

    @property
    def is_pending(self) -> bool:
        """True if Kafka has not answered the last commit yet."""
        return bool(self._pending)

    @property
    def unanswered(self) -> list[ReadyRecord]:
        """Records that are handed out when Kafka answers the pending commit."""
        return list(chain(*(records for _, _, records in self._pending.values())))

    def room_in(self, partition: AssignedPartition) -> int:
        """Return how many more records of a partition may be in flight.

        The limit includes records that wait for an earlier record of their key, because
        the commit's metadata contains them.
        """
        if self._terms.ordering == "none":
            return _MAX_UNSETTLED
        by_key = self._terms.ordering == "key"
        limit = _MAX_UNSETTLED_PER_PARTITION if by_key else self.room
        return max(0, limit - partition.unsettled)

    def send(
        self,
        consumer: Consumer,
        partitions: list[AssignedPartition],
        *,
        wait: bool = False,
    ) -> None:
        """Commit changes, unless a commit is pending or was sent just now.

        :param wait: Whether to wait for the answer. A callback of the client must wait,
            because the client does not call ``on_commit`` during another callback.
        """
        now = time.monotonic()
        if self._pending or (now < self._next_commit and not _is_starving(partitions)):
            return
        self._next_commit = now + _COMMIT_INTERVAL_SECONDS
        if self._terms.ahead:
            self._adapt_room()
        for partition in partitions:
            self._add(partition)
        if self._pending:
            self._commit_pending(consumer, wait)

    def recall(self) -> None:
        """Forget the pending commit, so that another one may be sent."""
        for partition, _, records in self._pending.values():
            partition.awaiting_commit[:0] = records
            partition.is_uncommitted = True
        self._pending = {}

    def on_answer(
        self, error: KafkaError | None, partitions: list[TopicPartition]
    ) -> list[KafkaError]:
        """Process Kafka's answer to a commit; return errors that matter."""
        if partitions and not any(self._is_awaited(offset) for offset in partitions):
            return []  # The answer to a commit that was recalled.
        pending, self._pending = self._pending, {}
        errors = {
            (offset.topic, offset.partition): offset.error for offset in partitions
        }
        failures = {}
        for partition_id, (partition, state, records) in pending.items():
            failed = errors.get(partition_id) or error
            if failed is None:
                partition.committed = state
                self._hand_over(partition, records)
                continue
            partition.awaiting_commit[:0] = records
            partition.is_uncommitted = True
            self._next_commit = time.monotonic() + _RETRY_SECONDS
            if failed.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
                partition.metadata_limit //= 2
            elif failed.code() not in _REBALANCING:
                failures[failed.code()] = failed
        return list(failures.values())

    def send_final(
        self, consumer: Consumer, partitions: list[AssignedPartition]
    ) -> bool:
        """Commit the last state of partitions that this consumer gives up.

        :returns: Whether everything is committed. If not, call this again.
        """
        if self._pending or time.monotonic() < self._next_commit:
            return False
        for partition, state in _final_states(partitions):
            self._pending[partition.topic, partition.number] = partition, state, []
        if self._pending:
            self._commit_pending(consumer, wait=False)
            return False
        return True

    def send_final_and_wait(
        self, consumer: Consumer, partitions: list[AssignedPartition]
    ) -> None:
        """Commit the last state of partitions, and wait for Kafka's answer."""
        offsets = [
            _offset(partition, state) for partition, state in _final_states(partitions)
        ]
        if not offsets:
            return
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _REBALANCING:
                self._shared.log(logging.WARNING, describe_trouble(error.args[0]))

    def _commit_pending(self, consumer: Consumer, wait: bool) -> None:
        offsets = [
            _offset(partition, state) for partition, state, _ in self._pending.values()
        ]
        try:
            if not wait:
                consumer.commit(offsets=offsets, asynchronous=True)
                return
            done = consumer.commit(offsets=offsets, asynchronous=False) or []
            failures = self.on_answer(None, done)
        except KafkaException as error:
            failures = self.on_answer(error.args[0], [])
        for failed in failures:
            self._shared.log(logging.WARNING, describe_trouble(failed))

    def _is_awaited(self, answered: TopicPartition) -> bool:
        pending_commit = self._pending.get((answered.topic, answered.partition))
        state = CommitState(answered.offset, answered.metadata or "")
        return pending_commit is not None and pending_commit[1] == state

    def _add(self, partition: AssignedPartition) -> None:
        if not partition.is_uncommitted:
            return
        partition.is_uncommitted = False
        state = partition.offsets.commit_state(partition.metadata_limit)
        if state == partition.committed:
            # An earlier commit notes these records as in flight already.
            self._hand_over(partition, partition.awaiting_commit)
        else:
            partition_id = partition.topic, partition.number
            self._pending[partition_id] = partition, state, partition.awaiting_commit
        partition.awaiting_commit = []

    def _hand_over(
        self, partition: AssignedPartition, records: list[ReadyRecord]
    ) -> None:
        """Hand records to handlers; release them if the consumer is paused."""
        if self._shared.is_paused or partition.leaving:
            for record in records:
                partition.offsets.release(record.offset)
            partition.is_uncommitted = True
        elif records:
            self._shared.ready.append(records)
            self._shared.notify()

    def _adapt_room(self) -> None:
        """Limit the records in flight to what handlers have settled lately."""
        wanted = self._terms.room + 2 * self.settled_count
        # It shrinks slowly, so that one slow moment has little effect.
        wanted = max(wanted, self._terms.room, self.room * 3 // 4)
        self.room = min(max(_MAX_UNSETTLED, self._terms.room), wanted)
        self.settled_count = 0


def _final_states(
    partitions: list[AssignedPartition],
) -> list[tuple[AssignedPartition, CommitState]]:
    """Return the last state of each partition, if it is not committed yet."""
    states = (
        (partition, partition.offsets.final_state(partition.metadata_limit))
        for partition in partitions
    )
    return [
        (partition, state)
        for partition, state in states
        if state.offset >= 0 and state != partition.committed
    ]


def _offset(partition: AssignedPartition, state: CommitState) -> TopicPartition:
    return TopicPartition(
        partition.topic, partition.number, state.offset, state.metadata
    )


def _is_starving(partitions: list[AssignedPartition]) -> bool:
    """Return whether no handler has a record, while records wait for a commit."""
    waiting = any(partition.awaiting_commit for partition in partitions)
    return waiting and not any(partition.in_hand > 0 for partition in partitions)
