"""Counts of an app's queues on Kafka: few requests for all queues together.

Kafka tells offsets. The records themselves are read for their times only: from each
partition the first unhandled one, once.
"""

from __future__ import annotations

import typing as t
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.base import find_oldest
from ...broker.headers import find_oldest_suspect
from ...broker.link import Lane
from ...broker.topology import QueuePlan
from . import naming
from . import records
from .client.admin import Committed
from .client.admin import KafkaAdmin
from .client.partition import PartitionId
from .lag import count_left
from .lag import peek_records
from .topics import Topics

#: Make the client fetch one batch of each partition.
_PEEK_SETTINGS = {"max.partition.fetch.bytes": 1, "queued.min.messages": 1}


class _RecordTimes(t.NamedTuple):
    """The times that a record tells, in seconds since 1970."""

    #: The offset of the record.
    offset: int
    #: When the record was written; for a copy, the time of the copy.
    written_at: float | None
    suspected_at: float | None


class _Lag(t.NamedTuple):
    """How far a consumer group is behind; ``None`` if a partition has no leader."""

    unhandled: int | None
    #: Number of records behind the committed offsets, also those handled already.
    uncommitted: int | None
    #: The first unhandled offset of each partition that has one.
    first: Mapping[PartitionId, int]


class KafkaBacklog:
    """Counts the messages of queues, again and again. Calls must not overlap.

    :param settings: librdkafka's settings, for a consumer.
    """

    def __init__(
        self, admin: KafkaAdmin, topics: Topics, settings: Mapping[str, t.Any]
    ) -> None:
        self._admin = admin
        self._topics = topics
        self._settings = {**settings, **_PEEK_SETTINGS}
        #: The plans and topics of the last search, and the partitions that it found.
        self._searched: tuple[list[QueuePlan], Mapping[str, int]] | None = None
        self._groups: dict[str, list[PartitionId]] = {}
        #: The first unhandled record of each partition that had one.
        self._times: dict[PartitionId, _RecordTimes] = {}

    def read(self, plans: Sequence[QueuePlan], timeout: float) -> list[QueueStatus]:
        """Return the status of each queue, without the number of its dead letters.

        New topics are found as soon as a consumer of the process finds them, or after a
        minute.

        :param timeout: Seconds that one answer of the broker may take.
        :raises BrokerError: if the broker does not answer.
        """
        groups = self._find_partitions(plans, self._topics.list_recent(timeout))
        every = {each for partitions in groups.values() for each in partitions}
        first = self._admin.find_beginnings(every, timeout)
        ends = self._admin.find_ends(every, timeout)
        committed = {
            group: self._read_committed(group, partitions, first, ends, timeout)
            for group, partitions in groups.items()
        }

        def measure(group: str, wanted: t.Callable[[str], bool]) -> _Lag:
            partitions = [each for each in groups[group] if wanted(each[0])]
            return _measure(partitions, committed[group], first, ends)

        queues = [
            (
                measure(plan.name, lambda topic: not naming.is_delay_topic(topic)),
                measure(plan.name, naming.is_delay_topic),
                measure(plan.suspects, lambda topic: True),
            )
            for plan in plans
        ]
        self._peek(each for ready, _, risky in queues for each in (ready, risky))
        return [self._create_status(*each) for each in queues]

    def _find_partitions(
        self, plans: Sequence[QueuePlan], topics: Mapping[str, int]
    ) -> dict[str, list[PartitionId]]:
        """Return the partitions that each consumer group reads.

        They are searched for only if something has changed: a cluster may have many
        topics.
        """
        if (list(plans), topics) != self._searched:
            self._groups = _list_partitions(plans, topics)
            self._searched = (list(plans), topics)
        return self._groups

    def _read_committed(
        self,
        group: str,
        partitions: Collection[PartitionId],
        first: Mapping[PartitionId, int],
        ends: Mapping[PartitionId, int],
        timeout: float,
    ) -> Mapping[PartitionId, Committed]:
        """Return a group's committed offsets in the partitions that hold records.

        The request needs a client for each group, so it is left out if it can be.
        """
        filled = [p for p in partitions if first.get(p, 0) < ends.get(p, 0)]
        return self._admin.read_committed(group, filled, timeout) if filled else {}

    def _peek(self, lags: Iterable[_Lag]) -> None:
        """Read the first unhandled records, except those that are known already."""
        first = {each: at for lag in lags for each, at in lag.first.items()}
        self._times = {
            each: times
            for each, times in self._times.items()
            if first.get(each) == times.offset
        }
        missing = {each: at for each, at in first.items() if each not in self._times}
        for record in peek_records(self._settings, missing):
            partition = record.topic(), record.partition()
            self._times[partition] = _read_times(record, first[partition])

    def _create_status(self, ready: _Lag, delayed: _Lag, risky: _Lag) -> QueueStatus:
        times = self._times
        written = [times[p].written_at if p in times else None for p in ready.first]
        since = [times[p].suspected_at for p in risky.first if p in times]
        known = [each for each in since if each is not None]
        suspects = None
        if risky.unhandled is not None:
            suspects = SuspectsStatus(risky.unhandled, min(known, default=None))
        return QueueStatus(
            waiting=ready.unhandled,
            delayed=delayed.unhandled,
            in_hand=None,
            suspects=suspects,
            dead_letters=None,
            oldest=find_oldest(written),
            lag=ready.uncommitted,
        )


def _list_partitions(
    plans: Sequence[QueuePlan], topics: Mapping[str, int]
) -> dict[str, list[PartitionId]]:
    found = {}
    for plan in plans:
        for lane in (Lane.MAIN, Lane.SUSPECTS):
            reads = naming.topic_filter(plan, lane)
            found[naming.group_of(plan, lane)] = [
                (topic, n)
                for topic, number in topics.items()
                if reads(topic)
                for n in range(number)
            ]
    return found


def _measure(
    partitions: Collection[PartitionId],
    committed: Mapping[PartitionId, Committed],
    first: Mapping[PartitionId, int],
    ends: Mapping[PartitionId, int],
) -> _Lag:
    if any(each not in ends for each in partitions):
        return _Lag(None, None, {})
    left, behind, begin = 0, 0, {}
    for each in partitions:
        oldest = Committed(first.get(each, ends[each]), "")
        at = committed.get(each, oldest)
        if at.offset < oldest.offset:
            at = oldest  # Kafka has deleted records that were not handled.
        count = count_left(at, ends[each])
        left, behind = left + count, behind + max(0, ends[each] - at.offset)
        if count:
            begin[each] = at.offset
    return _Lag(left, behind, begin)


def _read_times(record: records.Fetched, offset: int) -> _RecordTimes:
    kind, stamp = record.timestamp()
    message = records.read_record(record, "", redelivered=False)
    written_at = stamp / 1_000 if kind and stamp >= 0 else None
    return _RecordTimes(offset, written_at, find_oldest_suspect([message]))
