"""A consumer's membership in its group: join, give partitions up, leave.

Native thread only; the methods that begin with ``on_`` are callbacks of the client.
"""

from __future__ import annotations

import logging
import time
import typing as t
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from ....native_threads import get_unpatched
from ....text import pluralize
from .assignment import Assignment
from .client_classes import Consumer
from .commits import OffsetCommits
from .outage import Outage
from .partition import AssignedPartition
from .partition import PartitionId
from .positions import Positions
from .shared_state import SharedState
from .terms import ConsumerTerms

#: Seconds that the broker may take to answer, and that one attempt may take.
ANSWER_TIMEOUT_SECONDS = 5.0
_ATTEMPT_TIMEOUT_SECONDS = 0.5
#: Seconds that a leaving consumer tries to commit.
_FINAL_COMMIT_SECONDS = 3.5
#: Seconds of one poll while partitions move, or the consumer leaves.
_POLL_SECONDS = 0.005


class Membership:
    """A consumer's membership in its group, from joining to leaving."""

    def __init__(
        self,
        terms: ConsumerTerms,
        shared: SharedState,
        assignment: Assignment,
        commits: OffsetCommits,
        positions: Positions,
        outage: Outage,
    ) -> None:
        self._terms = terms
        self._shared = shared
        self._assignment = assignment
        self._commits = commits
        self._positions = positions
        self._outage = outage

    def join(self, consumer: Consumer, topics: list[str]) -> None:
        """Connect, and subscribe to the topics."""
        self._connect(consumer)
        consumer.subscribe(
            topics,
            on_assign=self.on_assigned,
            on_revoke=self.on_revoked,
            on_lost=self.on_lost,
        )
        self._shared.is_subscribed = True
        self._shared.notify()

    def on_assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Begin to read partitions that the group has assigned."""
        self._shared.has_joined = True
        self._shared.notify()
        if self._shared.is_stopping or not partitions:
            return
        timeout = 2 * ANSWER_TIMEOUT_SECONDS
        committed = consumer.committed(partitions, timeout=timeout)
        for committed_partition in committed:
            if committed_partition.error is not None:
                raise KafkaException(committed_partition.error)
            offset = (
                committed_partition.offset if committed_partition.offset >= 0 else None
            )
            metadata = committed_partition.metadata or ""
            self._assignment.add(
                committed_partition.topic,
                committed_partition.partition,
                offset,
                metadata,
            )
        self._positions.start_reading(consumer, committed)

    def on_revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Give partitions up: wait for their handlers, commit, and drop them."""
        ids = _partition_ids(partitions)
        assigned = self._assignment.partitions
        leaving = [
            assigned[partition_id] for partition_id in ids if partition_id in assigned
        ]
        for partition in leaving:
            partition.leaving = True
        self._shared.notify()
        self._await_handlers(consumer, leaving)
        if self._shared.error is None:
            self._commits.send_final_and_wait(consumer, leaving)
        self._assignment.drop(ids)

    def on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop partitions that other consumers have got already."""
        self._assignment.drop(_partition_ids(partitions))
        self._shared.log(
            logging.WARNING,
            f"Lost {pluralize(len(partitions), 'partition')}: another member may handle"
            " what is being handled here. This process was not heard of for too long"
            " ('session.timeout.ms', 'max.poll.interval.ms').",
        )

    def commit_final(
        self, consumer: Consumer, on_record: Callable[[t.Any], None]
    ) -> None:
        """Commit the last state of all partitions, before leaving the group.

        The broker refuses commits that are sent during a rebalance, or while the client
        closes. If a consumer leaves during a rebalance, the group waits for the
        consumer's session timeout.

        :param on_record: Called with records and errors that the client gets meanwhile.
        """
        self._shared.is_paused = True
        deadline = time.monotonic() + _FINAL_COMMIT_SECONDS
        while self._shared.error is None and time.monotonic() < deadline:
            self._assignment.apply_requests()
            partitions = list(self._assignment.partitions.values())
            if self._commits.send_final(consumer, partitions):
                break
            record = consumer.poll(_POLL_SECONDS)
            if record is not None:
                on_record(record)

    def leave(self, consumer: Consumer) -> None:
        """Leave the group, after waiting for the end of a running rebalance.

        With ``Consumer.close`` alone, the group might wait for the session timeout: a
        member without a partition does not say that it leaves, and while a join waits
        for other members, the broker reads no later request on its connection.
        https://github.com/confluentinc/librdkafka/pull/3375
        """
        if self._commits.is_pending:
            return  # The broker has not answered for long.
        self._shared.is_leaving = True
        deadline = time.monotonic() + self._terms.grace + _FINAL_COMMIT_SECONDS
        consumer.unsubscribe()
        while consumer.memberid() and time.monotonic() < deadline:
            if self._shared.error is not None or self._outage.is_possible:
                break
            consumer.poll(_POLL_SECONDS)
        self._shared.is_leaving = False

    def _connect(self, consumer: Consumer) -> None:
        """Wait for the broker's first answer; raise an error if there is none."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_SECONDS
        while True:
            try:
                consumer.list_topics(timeout=_ATTEMPT_TIMEOUT_SECONDS)
                return
            except KafkaException as error:
                # The error callback tells more: a refusal, or an outage.
                consumer.poll(0)
                over = self._outage.is_possible or time.monotonic() > deadline
                if self._shared.error is not None:
                    raise self._shared.error from error
                if over or self._shared.is_stopping:
                    raise

    def _await_handlers(
        self, consumer: Consumer, leaving: list[AssignedPartition]
    ) -> None:
        """Wait for handlers of partitions that are given up."""
        shared, assignment = self._shared, self._assignment
        deadline = time.monotonic() + self._terms.grace
        self._commits.recall()
        assignment.apply_requests()
        while any(partition.in_hand > 0 for partition in leaving):
            if shared.is_stopping or shared.error or time.monotonic() > deadline:
                break
            shared.last_seen = time.monotonic()
            staying = [p for p in assignment.partitions.values() if not p.leaving]
            if not shared.is_paused:
                assignment.mark(staying)
            self._commits.send(consumer, staying, wait=True)
            get_unpatched("time", "sleep")(_POLL_SECONDS)
            assignment.apply_requests()


def _partition_ids(partitions: list[TopicPartition]) -> list[PartitionId]:
    return [(partition.topic, partition.partition) for partition in partitions]
