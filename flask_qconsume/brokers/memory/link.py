"""The link that consumes one queue in memory."""

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
    """Consumes one queue in memory; closing it puts unsettled messages back."""

    pushes = False

    def __init__(self, store: Store, plan: QueuePlan, lane: Lane) -> None:
        super().__init__(plan, lane)
        self._store = store
        self._queue = store.queue(self.queue)
        self._unsettled: dict[int, StoredMessage] = {}
        self._lock = threading.Lock()
        self._is_paused = False

    def read(self, room: int) -> Sequence[Delivery]:
        messages = self._queue.take(room, lambda: self.closed or self._is_paused)
        with self._lock:
            if self.closed:
                self._queue.put(messages)
                return []
            self._unsettled.update({stored.number: stored for stored in messages})
        return [Delivery(self, stored.number, stored.message) for stored in messages]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._mark_settled(delivery)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        for forward in forwards:
            if self._mark_settled(forward.delivery):
                self._put(forward)
        return [None] * len(forwards)

    def pause(self) -> None:
        self._is_paused = True
        self._queue.wake()

    def release(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            tags = [d.tag for d in deliveries if d.tag in self._unsettled]
            messages = [self._unsettled.pop(tag) for tag in tags]
        self._queue.put(messages)

    def close(self) -> None:
        with self._lock:
            self.closed = True
            unsettled = [
                copy_for_redelivery(stored) for stored in self._unsettled.values()
            ]
            self._unsettled.clear()
        # Messages keep their numbers, and so their places in the queue.
        self._queue.put(unsettled)

    def _mark_settled(self, delivery: Delivery) -> bool:
        with self._lock:
            return self._unsettled.pop(delivery.tag, None) is not None

    def _put(self, forward: Forward) -> None:
        is_suspect = forward.lane is Lane.SUSPECTS
        name = self.plan.suspects if is_suspect else self.plan.name
        message = create_forwarded(forward.delivery.message, forward, name)
        if forward.lane is Lane.DEAD:
            self._store.add_dead_letter(self.plan.dead, message, forward.expires)
        else:
            stored = create_stored(message, forward.delay)
            self._store.queue(name).put([stored], forward.delay)


def create_forwarded(message: Message, forward: Forward, queue: str) -> Message:
    """Return the copy of a forwarded message, as a consumer of ``queue`` gets it."""
    properties = encode_copy(message, forward.headers)
    copy = read_message(
        message.raw,
        queue=queue,
        exchange="",
        routing_key=queue,
        redelivered=False,
        properties=properties,
        headers=properties["headers"],
    )
    return dataclasses.replace(copy, timestamp=message.timestamp)
