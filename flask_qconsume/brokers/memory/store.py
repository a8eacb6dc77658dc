"""Queues, bindings and dead letters in memory, shared by all users of one broker.

Thread-safe.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import threading
import time
import typing as t
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from weakref import WeakValueDictionary

from ...broker.topic_patterns import matches
from ...broker.topology import Binding
from ...first_use import PerProcess
from ...message import Message

#: Numbers messages in the order in which they are stored.
_numbers = count()


class StoredMessage(t.NamedTuple):
    """A message in a queue; sorted by priority, then by age."""

    rank: int
    number: int
    message: Message
    #: Time at which it is ready for the first time, in seconds since 1970.
    ready_at: float


def create_stored(message: Message, delay: float = 0.0) -> StoredMessage:
    """Create a queue entry for a new message, after all others of its priority.

    :param delay: Seconds until it is ready.
    """
    rank, ready_at = -(message.priority or 0), time.time() + delay
    return StoredMessage(rank, next(_numbers), message, ready_at)


def copy_for_redelivery(stored: StoredMessage) -> StoredMessage:
    """Return a copy of a message, to be delivered again from the same place.

    A handler that still runs may be using the original message.
    """
    return stored._replace(message=dataclasses.replace(stored.message))


class MemoryQueue:
    """One queue in memory: its ready messages, and its delayed ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed = threading.Condition()
        self._clock = clock
        self._ready: list[StoredMessage] = []
        self._delayed: list[tuple[float, StoredMessage]] = []

    def put(self, messages: t.Iterable[StoredMessage], delay: float = 0.0) -> None:
        """Add messages, each behind those of its priority that are older.

        :param delay: Seconds until the messages are ready.
        """
        with self.changed:
            for stored in messages:
                if delay > 0:
                    heapq.heappush(self._delayed, (self._clock() + delay, stored))
                else:
                    heapq.heappush(self._ready, stored)
            self.changed.notify_all()

    def take(self, room: int, is_closed: Callable[[], bool]) -> list[StoredMessage]:
        """Wait for a message; remove and return up to ``room`` messages.

        :param is_closed: A function; once it returns true, an empty list is returned.
        """
        with self.changed:
            while not is_closed():
                due_in = self._move_due()
                if self._ready:
                    number = min(room, len(self._ready))
                    return [heapq.heappop(self._ready) for _ in range(number)]
                self.changed.wait(due_in)
        return []

    def ready(self) -> list[Message]:
        """Return the messages that are ready, without removing them."""
        with self.changed:
            self._move_due()
            return [stored.message for stored in self._ready]

    def find_oldest(self) -> float | None:
        """Return since when the oldest ready message has been ready, if there is one.

        The time is in seconds since 1970.
        """
        with self.changed:
            self._move_due()
            return min((stored.ready_at for stored in self._ready), default=None)

    @property
    def delayed(self) -> int:
        """The number of delayed messages."""
        with self.changed:
            self._move_due()
            return len(self._delayed)

    def wake(self) -> None:
        """Make each waiting call of :meth:`take` check whether it is to end."""
        with self.changed:
            self.changed.notify_all()

    def __len__(self) -> int:
        with self.changed:
            self._move_due()
            return len(self._ready)

    def _move_due(self) -> float | None:
        """Make due messages ready; return the seconds until the next is due."""
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            heapq.heappush(self._ready, heapq.heappop(self._delayed)[1])
        return self._delayed[0][0] - now if self._delayed else None


@dataclass
class StoredDeadLetter:
    """A dead letter, and the time when it expires."""

    number: int
    message: Message
    expires_at: float


class Store:
    """All queues, bindings and dead letters of one broker in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.bindings: set[Binding] = set()
        #: Whether a worker of this process has ever begun to consume.
        self.has_worker = False
        self._queues: dict[str, MemoryQueue] = {}
        self._dead_letters: dict[str, list[StoredDeadLetter]] = {}

    def queue(self, name: str) -> MemoryQueue:
        """Return the queue with this name, which is created if it is missing."""
        with self.lock:
            if name not in self._queues:
                self._queues[name] = MemoryQueue(self.clock)
            return self._queues[name]

    def depth(self, name: str) -> int:
        """Return the number of a queue's ready messages; 0 without the queue."""
        with self.lock:
            return len(self._queues[name]) if name in self._queues else 0

    def count_messages(self) -> int:
        """Return the number of all messages in the store, including dead letters."""
        with self.lock:
            queued = sum(len(q) + q.delayed for q in self._queues.values())
            dead = sum(len(self.dead_letters(name)) for name in [*self._dead_letters])
            return queued + dead

    def find_queues(self, exchange: str, routing_key: str) -> list[str]:
        """Return the names of the queues that the bindings select for a routing key."""
        with self.lock:
            if not exchange:
                return [routing_key] if routing_key in self._queues else []
            bindings = (b for b in self.bindings if b.exchange == exchange)
            return sorted(
                {b.queue for b in bindings if matches(b.routing_key, routing_key)}
            )

    def add_dead_letter(
        self, name: str, message: Message, expires: float | None
    ) -> None:
        """Store a dead letter.

        :param expires: Seconds after which it expires; ``None`` if it never does.
        """
        with self.lock:
            expires_at = math.inf if expires is None else self.clock() + expires
            letter = StoredDeadLetter(next(_numbers), message, expires_at)
            self._dead_letters.setdefault(name, []).append(letter)

    def dead_letters(self, name: str) -> list[StoredDeadLetter]:
        """Return the dead letters that have not expired, the oldest first."""
        with self.lock:
            now = self.clock()
            letters = self._dead_letters.get(name, [])
            unexpired_letters = [
                letter for letter in letters if letter.expires_at > now
            ]
            self._dead_letters[name] = unexpired_letters
            return list(unexpired_letters)

    def remove_dead_letter(self, name: str, letter: StoredDeadLetter) -> bool:
        """Remove a dead letter; return false if another caller has removed it."""
        with self.lock:
            letters = self._dead_letters.get(name, [])
            if letter not in letters:
                return False
            letters.remove(letter)
            return True


#: A forked child has stores of its own, since the parent's have no consumers there.
_named: PerProcess[WeakValueDictionary[str, Store]] = PerProcess(WeakValueDictionary)


def get_named_store(name: str) -> Store:
    """Return the store of a name, which all brokers of ``memory://name`` share."""
    return _named.get().setdefault(name, Store())
