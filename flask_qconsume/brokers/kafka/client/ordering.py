"""In which order arrivals are handed out: the hub's side. No I/O, no threads.

What belongs together is a *lane*: handed out one by one, each when the one before it is
settled. A retry keeps its place at the head of its lane, and what is behind it waits.
"""

from __future__ import annotations

import heapq
import itertools
import typing as t
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable

from .partition import AssignedPartition
from .partition import ReadyRecord


class UnorderedQueue:
    """As they come; what is not handed out when its slot is gone is forgotten."""

    def __init__(self) -> None:
        self._ready: deque[ReadyRecord] = deque()

    def add(self, arrivals: Iterable[ReadyRecord]) -> None:
        """These may be handed out."""
        self._ready.extend(arrivals)

    def take(self, room: int, now: float) -> list[ReadyRecord]:
        """Up to ``room`` of those whose turn it is."""
        ready, found = self._ready, []
        while ready and room > 0:
            arrival = ready.popleft()
            if arrival.slot.leaving:
                continue
            arrival.slot.handed += 1
            found.append(arrival)
            room -= 1
        return found

    def settled(self, arrivals: Iterable[ReadyRecord]) -> bool:
        """These are done with; whether that makes it another one's turn."""
        return False

    def postpone(self, arrival: ReadyRecord, due: float) -> None:
        """Hand it out once more when it is due, before what is behind it."""
        raise NotImplementedError

    def next_due(self) -> float | None:
        """When the next postponed arrival is due."""
        return None

    def drop(self, slot: AssignedPartition) -> None:
        """Forget what belongs to a slot that is gone."""
        self._ready = deque(each for each in self._ready if each.slot is not slot)

    def clear(self) -> list[ReadyRecord]:
        """Forget all that is not handed out, and return it."""
        found = list(self._ready)
        self._ready.clear()
        return found


Lane = t.Hashable


class OrderedQueue(UnorderedQueue):
    """One by one within each lane.

    :param lane: The lane of an arrival within its slot; ``None`` for no lane at all.
    """

    def __init__(self, lane: Callable[[ReadyRecord], Lane | None]) -> None:
        super().__init__()
        self._lane = lane
        #: What waits in each lane of which one is handed out, may be, or is postponed.
        self._lanes: dict[AssignedPartition, dict[Lane, deque[ReadyRecord]]] = {}
        self._postponed: list[tuple[float, int, ReadyRecord]] = []
        self._numbers = itertools.count()

    def add(self, arrivals: Iterable[ReadyRecord]) -> None:
        for arrival in arrivals:
            lane = self._lane(arrival)
            if lane is None:
                self._ready.append(arrival)
                continue
            lanes = self._lanes.setdefault(arrival.slot, {})
            queue = lanes.get(lane)
            if queue is None:
                lanes[lane] = deque()
                self._ready.append(arrival)
            else:
                queue.append(arrival)
                arrival.slot.blocked += 1

    def take(self, room: int, now: float) -> list[ReadyRecord]:
        while self._postponed and self._postponed[0][0] <= now:
            arrival = heapq.heappop(self._postponed)[2]
            arrival.slot.blocked -= 1
            self._ready.append(arrival)
        return super().take(room, now)

    def settled(self, arrivals: Iterable[ReadyRecord]) -> bool:
        return any([self._is_next_free(arrival) for arrival in arrivals])

    def postpone(self, arrival: ReadyRecord, due: float) -> None:
        arrival.slot.handed -= 1
        arrival.slot.blocked += 1
        heapq.heappush(self._postponed, (due, next(self._numbers), arrival))

    def next_due(self) -> float | None:
        return self._postponed[0][0] if self._postponed else None

    def drop(self, slot: AssignedPartition) -> None:
        super().drop(slot)
        self._lanes.pop(slot, None)
        self._postponed = [each for each in self._postponed if each[2].slot is not slot]
        heapq.heapify(self._postponed)

    def clear(self) -> list[ReadyRecord]:
        found = super().clear()
        for lanes in self._lanes.values():
            found += [arrival for queue in lanes.values() for arrival in queue]
        found += [arrival for _, _, arrival in self._postponed]
        self._lanes.clear()
        self._postponed.clear()
        return found

    def _is_next_free(self, arrival: ReadyRecord) -> bool:
        lanes = self._lanes.get(arrival.slot)
        lane = self._lane(arrival)
        if lanes is None or lane is None or lane not in lanes:
            return False
        queue = lanes[lane]
        if not queue:
            del lanes[lane]
            return False
        self._ready.append(queue.popleft())
        arrival.slot.blocked -= 1
        return True


def create_queue(ordering: str) -> UnorderedQueue:
    """What keeps the order of that name: ``"none"``, ``"key"`` or ``"partition"``."""
    if ordering == "key":
        return OrderedQueue(lambda arrival: t.cast(Lane, arrival.record.key()))
    if ordering == "partition":
        return OrderedQueue(lambda arrival: "")
    return UnorderedQueue()
