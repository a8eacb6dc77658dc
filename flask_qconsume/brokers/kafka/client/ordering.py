"""The order in which records are handed out to handlers. No I/O, no threads."""

from __future__ import annotations

import heapq
import itertools
import typing as t
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable

from .partition import AssignedPartition
from .partition import ReadyRecord

#: Records with the same key are handled one by one. Any hashable value is a key.
OrderingKey = t.Hashable


class UnorderedQueue:
    """Hands out records in the order in which they were fetched."""

    def __init__(self) -> None:
        self._ready: deque[ReadyRecord] = deque()

    def add(self, records: Iterable[ReadyRecord]) -> None:
        self._ready.extend(records)

    def take(self, room: int, now: float) -> list[ReadyRecord]:
        """Return up to ``room`` records that may be handled now."""
        ready, records = self._ready, []
        while ready and room > 0:
            record = ready.popleft()
            if record.partition.leaving:
                continue
            record.partition.handed_count += 1
            records.append(record)
            room -= 1
        return records

    def settle(self, records: Iterable[ReadyRecord]) -> bool:
        """Note that records are done; return true if records behind them are ready."""
        return False

    def postpone(self, record: ReadyRecord, due: float) -> None:
        """Hand a record out again when it is due, before those behind it."""
        raise NotImplementedError

    def next_due(self) -> float | None:
        """Return when the next postponed record is due (``time.monotonic()``)."""
        return None

    def drop(self, partition: AssignedPartition) -> None:
        """Forget the records of a partition that the consumer has lost."""
        self._ready = deque(r for r in self._ready if r.partition is not partition)

    def clear(self) -> list[ReadyRecord]:
        """Forget all records that are not handed out, and return them."""
        records = list(self._ready)
        self._ready.clear()
        return records


class OrderedQueue(UnorderedQueue):
    """Hands out a record when the record before it with the same key is done.

    A postponed record keeps its place: its successors wait for it.

    :param key_of: Returns the key of a record within its partition; ``None`` for a
        record that waits for no other record.
    """

    def __init__(self, key_of: Callable[[ReadyRecord], OrderingKey | None]) -> None:
        super().__init__()
        self._key_of = key_of
        #: Successors by key, for each key of which a record is ready, handed out or
        #: postponed.
        self._waiting: dict[
            AssignedPartition, dict[OrderingKey, deque[ReadyRecord]]
        ] = {}
        self._postponed: list[tuple[float, int, ReadyRecord]] = []
        #: Break ties between records that are due at the same time.
        self._numbers = itertools.count()

    def add(self, records: Iterable[ReadyRecord]) -> None:
        for record in records:
            key = self._key_of(record)
            if key is None:
                self._ready.append(record)
                continue
            by_key = self._waiting.setdefault(record.partition, {})
            queue = by_key.get(key)
            if queue is None:
                by_key[key] = deque()
                self._ready.append(record)
            else:
                queue.append(record)
                record.partition.blocked_count += 1

    def take(self, room: int, now: float) -> list[ReadyRecord]:
        while self._postponed and self._postponed[0][0] <= now:
            record = heapq.heappop(self._postponed)[2]
            record.partition.blocked_count -= 1
            self._ready.append(record)
        return super().take(room, now)

    def settle(self, records: Iterable[ReadyRecord]) -> bool:
        return any([self._release_successor(record) for record in records])

    def postpone(self, record: ReadyRecord, due: float) -> None:
        record.partition.handed_count -= 1
        record.partition.blocked_count += 1
        heapq.heappush(self._postponed, (due, next(self._numbers), record))

    def next_due(self) -> float | None:
        return self._postponed[0][0] if self._postponed else None

    def drop(self, partition: AssignedPartition) -> None:
        super().drop(partition)
        self._waiting.pop(partition, None)
        self._postponed = [
            postponed
            for postponed in self._postponed
            if postponed[2].partition is not partition
        ]
        heapq.heapify(self._postponed)

    def clear(self) -> list[ReadyRecord]:
        records = super().clear()
        for by_key in self._waiting.values():
            records += itertools.chain(*by_key.values())
        records += [record for _, _, record in self._postponed]
        self._waiting.clear()
        self._postponed.clear()
        return records

    def _release_successor(self, record: ReadyRecord) -> bool:
        by_key = self._waiting.get(record.partition)
        key = self._key_of(record)
        if by_key is None or key is None or key not in by_key:
            return False
        queue = by_key[key]
        if not queue:
            del by_key[key]
            return False
        self._ready.append(queue.popleft())
        record.partition.blocked_count -= 1
        return True


def create_queue(ordering: str) -> UnorderedQueue:
    """Create the queue for the ordering ``"none"``, ``"key"`` or ``"partition"``."""
    if ordering == "key":
        return OrderedQueue(lambda record: t.cast(OrderingKey, record.record.key()))
    if ordering == "partition":
        return OrderedQueue(lambda record: "")
    return UnorderedQueue()
