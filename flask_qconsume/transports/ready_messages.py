"""Messages that a kombu connection has read and not delivered yet. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable

from .kombu_payload import Payload


class ReadyMessages:
    """Messages that were read and not delivered, taken from their queues in turn."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Payload]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def count(self, queue: str) -> int:
        """Return the number of ready messages of a queue."""
        return len(self._queues.get(queue, ()))

    def add(self, payloads: Iterable[tuple[Payload, str]]) -> None:
        """Add messages, each of them with the name of its queue."""
        for payload, queue in payloads:
            self._queues.setdefault(queue, deque()).append(payload)

    def take(self, is_allowed: Callable[[str], bool]) -> tuple[Payload, str] | None:
        """Take a message from the next of the allowed queues; ``None`` without any."""
        queue = next(filter(is_allowed, self._queues), None)
        if queue is None:
            return None
        payload = self._queues[queue].popleft()
        if self._queues[queue]:
            self._queues.move_to_end(queue)
        else:
            del self._queues[queue]
        return payload, queue

    def remove(self, queue: str) -> list[Payload]:
        """Remove and return all messages of a queue."""
        return list(self._queues.pop(queue, ()))

    def clear(self) -> None:
        """Remove all messages."""
        self._queues.clear()
