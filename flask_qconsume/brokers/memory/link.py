"""One subscription's view of a queue in memory."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.properties import encode_copy
from ...broker.properties import read_message
from ...broker.topology import QueuePlan
from ...message import Message
from .store import Store
from .store import StoredMessage
from .store import copy_for_redelivery
from .store import create_stored


class MemoryLink(Link):
    """Takes entries out of a queue, and puts back what was not settled."""

    pushes = False

    def __init__(self, store: Store, plan: QueuePlan, lane: Lane) -> None:
        super().__init__(plan, lane)
        self._store = store
        self._queue = store.queue(self.queue)
        self._unsettled: dict[int, StoredMessage] = {}
        self._lock = threading.Lock()
        self._paused = False

    def read(self, room: int) -> Sequence[Delivery]:
        entries = self._queue.take(room, lambda: self.closed or self._paused)
        with self._lock:
            if self.closed:
                self._queue.put(entries)
                return []
            self._unsettled.update({entry.number: entry for entry in entries})
        return [Delivery(self, entry.number, entry.message) for entry in entries]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._settle(delivery)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        for forward in forwards:
            if self._settle(forward.delivery):
                self._put(forward)
        return [None] * len(forwards)

    def pause(self) -> None:
        self._paused = True
        self._queue.wake()

    def release(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            tags = [d.tag for d in deliveries if d.tag in self._unsettled]
            entries = [self._unsettled.pop(tag) for tag in tags]
        self._queue.put(entries)

    def close(self) -> None:
        with self._lock:
            self.closed = True
            unsettled = [
                copy_for_redelivery(entry) for entry in self._unsettled.values()
            ]
            self._unsettled.clear()
        # Their numbers are kept, so they come to stand where they stood.
        self._queue.put(unsettled)

    def _settle(self, delivery: Delivery) -> bool:
        with self._lock:
            return self._unsettled.pop(delivery.tag, None) is not None

    def _put(self, forward: Forward) -> None:
        suspects = forward.lane is Lane.SUSPECTS
        name = self.plan.suspects if suspects else self.plan.name
        message = create_copy(forward.delivery.message, forward, name)
        if forward.lane is Lane.DEAD:
            self._store.add_dead_letter(self.plan.dead, message, forward.expires)
        else:
            self._store.queue(name).put([create_stored(message)], forward.delay)


def create_copy(message: Message, forward: Forward, queue: str) -> Message:
    """The copy that goes elsewhere, as it would arrive from any other broker."""
    properties = encode_copy(message, forward.headers)
    arrived = read_message(
        message.raw,
        queue=queue,
        exchange="",
        routing_key=queue,
        redelivered=False,
        properties=properties,
        headers=properties["headers"],
    )
    return dataclasses.replace(arrived, timestamp=message.timestamp)
