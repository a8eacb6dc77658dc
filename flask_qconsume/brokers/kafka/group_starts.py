"""The first offsets of consumer groups.

'auto.offset.reset' applies only when a group is created: the offsets of all partitions
that exist then are committed at once. So a partition without a committed offset is
newer than its group, and is read from its first record.

Kafka forgets the offsets of a group that has had no member for
'offsets.retention.minutes'; then the group looks new. A marker record tells it from a
new group: a tombstone in the topic of the queue's dead letters, which removes none.
Even after Kafka has compacted the marker away, the end offset of that topic stays above
0.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker.link import Lane
from ...broker.topology import QueuePlan
from ...logs import get_logger
from . import naming
from .client.admin import KafkaAdmin
from .client.partition import PartitionId
from .client.producer import ProducerRecord

logger = get_logger("flask_qconsume.brokers.kafka")

_MARK = b"qconsume: the group has begun"

#: Sends records, with a timeout in seconds; returns ``None`` or the error for each.
Send = Callable[[Sequence[ProducerRecord], float], list[Exception | None]]


class GroupStarts:
    """Commits the first offsets of new consumer groups; finds groups without offsets.

    :param topics: Returns how many partitions each topic has.
    :param at_the_end: Whether a new group skips records that are older than the group.
    """

    def __init__(
        self,
        admin: KafkaAdmin,
        topics: Callable[[float], Mapping[str, int]],
        send: Send,
        *,
        at_the_end: bool,
    ) -> None:
        self._admin = admin
        self._topics = topics
        self._send_records = send
        self._at_the_end = at_the_end
        self._begun_groups: set[str] = set()
        self._checked_groups: set[str] = set()

    def begin(self, plans: Sequence[QueuePlan], timeout: float) -> None:
        """Commit the first offsets of consumer groups that are new.

        :raises BrokerError: if the broker does not answer, or refuses.
        """
        deadline = time.monotonic() + timeout
        unknown = [plan for plan in plans if plan.name not in self._begun_groups]
        if not unknown:
            return
        topics = self._topics(timeout)
        marked = self._find_marked(unknown, topics, _time_left(deadline))
        for plan in unknown:
            if plan.name not in marked:
                self._start(plan, topics, _time_left(deadline))
                self._checked_groups.add(plan.name)
            self._begun_groups.add(plan.name)

    def check(self, plan: QueuePlan, timeout: float) -> None:
        """Log a warning if Kafka has deleted a group's offsets; commit new ones.

        :raises BrokerError: if the broker does not answer, or refuses.
        """
        if plan.name in self._checked_groups:
            return
        partitions = _partitions_of(plan, self._topics(timeout))
        if partitions and not self._admin.read_committed(
            plan.name, partitions, timeout
        ):
            logger.warning(_FORGOTTEN, plan.name)
            first = self._admin.find_beginnings(partitions, timeout)
            self._admin.commit(plan.name, first, timeout)
        self._checked_groups.add(plan.name)

    def _find_marked(
        self, plans: Sequence[QueuePlan], topics: Mapping[str, int], timeout: float
    ) -> set[str]:
        """Return the queues that have a marker, since their group has read before."""
        queues = {naming.dead_letter_topic(plan.name): plan.name for plan in plans}
        partitions = [
            (topic, n) for topic in queues for n in range(topics.get(topic, 0))
        ]
        ends = self._admin.find_ends(partitions, timeout)
        return {queues[topic] for (topic, _), end in ends.items() if end > 0}

    def _start(
        self, plan: QueuePlan, topics: Mapping[str, int], timeout: float
    ) -> None:
        deadline = time.monotonic() + timeout
        partitions = _partitions_of(plan, topics)
        # This is read before the group's commits: if two processes start a group at
        # once, the later commit is no further than what either process has found.
        offsets = self._first_offsets(partitions, timeout)
        committed = self._admin.read_committed(
            plan.name, partitions, _time_left(deadline)
        )
        if committed or self._admin.commit(plan.name, offsets, _time_left(deadline)):
            # A mark that does not arrive is sent at the next start.
            mark = ProducerRecord(naming.dead_letter_topic(plan.name), None, _MARK)
            self._send_records([mark], _time_left(deadline))

    def _first_offsets(
        self, partitions: Sequence[PartitionId], timeout: float
    ) -> dict[PartitionId, int]:
        """Return the offset of each partition at which a new group begins to read.

        Retry topics are read from their first record. Without a committed offset, the
        client would fetch from a partition only after its first fetch from the other
        partitions, up to half a second later.
        """
        if not self._at_the_end:
            return self._admin.find_beginnings(partitions, timeout)
        retry_partitions = [
            partition for partition in partitions if naming.is_retry_topic(partition[0])
        ]
        first = self._admin.find_beginnings(retry_partitions, timeout)
        return (
            self._admin.find_ends(set(partitions) - set(retry_partitions), timeout)
            | first
        )


_FORGOTTEN = (
    "Kafka has no offsets of the group '%s' any more, so it begins at the first record"
    " that its topics keep, and handles again what it had handled. Kafka forgets the"
    " offsets of a group that has had no member for 'offsets.retention.minutes' (a week"
    " unless set): set more on the brokers, or run a worker more often. To begin"
    " elsewhere, stop the workers and use 'kafka-consumer-groups.sh --reset-offsets'"
)


def _partitions_of(plan: QueuePlan, topics: Mapping[str, int]) -> list[PartitionId]:
    reads = naming.topic_filter(plan, Lane.MAIN)
    return [(name, n) for name in topics if reads(name) for n in range(topics[name])]


def _time_left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.1)
