"""Queues and bindings in memory, shared by all who use one broker. Thread-safe."""

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

#: Every message put anywhere gets the next of these: the order within a priority.
_numbers = count()


class StoredMessage(t.NamedTuple):
    """A message in a queue; sorts by priority, then by age."""

    rank: int
    number: int
    message: Message


def create_stored(message: Message) -> StoredMessage:
    """A new entry, behind all others of its priority."""
    return StoredMessage(-(message.priority or 0), next(_numbers), message)


def copy_for_redelivery(entry: StoredMessage) -> StoredMessage:
    """An entry that comes back, with a message of its own.

    A handler that does not end may have the one that it was given for ever.
    """
    return entry._replace(message=dataclasses.replace(entry.message))


class MemoryQueue:
    """One queue: what waits, and what is held back until it is due."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed = threading.Condition()
        self._clock = clock
        self._ready: list[StoredMessage] = []
        self._delayed: list[tuple[float, StoredMessage]] = []

    def put(self, entries: t.Iterable[StoredMessage], delay: float = 0.0) -> None:
        """Add entries, new ones or ones that come back; each to its place."""
        with self.changed:
            for entry in entries:
                if delay > 0:
                    heapq.heappush(self._delayed, (self._clock() + delay, entry))
                else:
                    heapq.heappush(self._ready, entry)
            self.changed.notify_all()

    def take(self, room: int, closed: Callable[[], bool]) -> list[StoredMessage]:
        """Wait for entries and take up to ``room``; none once ``closed()`` is true."""
        with self.changed:
            while not closed():
                due_in = self._move_due()
                if self._ready:
                    number = min(room, len(self._ready))
                    return [heapq.heappop(self._ready) for _ in range(number)]
                self.changed.wait(due_in)
        return []

    def ready(self) -> list[Message]:
        """What may be taken; looking changes nothing."""
        with self.changed:
            self._move_due()
            return [entry.message for entry in self._ready]

    @property
    def delayed(self) -> int:
        """How many are held back."""
        with self.changed:
            self._move_due()
            return len(self._delayed)

    def wake(self) -> None:
        """Let those who wait look again."""
        with self.changed:
            self.changed.notify_all()

    def __len__(self) -> int:
        with self.changed:
            self._move_due()
            return len(self._ready)

    def _move_due(self) -> float | None:
        """Move what is due; return the seconds until the next, if there is one."""
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            heapq.heappush(self._ready, heapq.heappop(self._delayed)[1])
        return self._delayed[0][0] - now if self._delayed else None


@dataclass
class StoredDeadLetter:
    """A dead letter and when it is forgotten, on the store's clock."""

    number: int
    message: Message
    until: float


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
        """The queue of that name, made if need be."""
        with self.lock:
            if name not in self._queues:
                self._queues[name] = MemoryQueue(self.clock)
            return self._queues[name]

    def depth(self, name: str) -> int:
        """How many messages are ready in a queue; looking does not make it."""
        with self.lock:
            return len(self._queues[name]) if name in self._queues else 0

    def count_messages(self) -> int:
        """How many messages there are, dead letters included."""
        with self.lock:
            waiting = sum(len(q) + q.delayed for q in self._queues.values())
            return waiting + sum(
                len(self.dead_letters(name)) for name in list(self._dead_letters)
            )

    def find_queues(self, exchange: str, routing_key: str) -> list[str]:
        """The names of the queues that get what is published so."""
        with self.lock:
            if not exchange:
                return [routing_key] if routing_key in self._queues else []
            found = (b for b in self.bindings if b.exchange == exchange)
            return sorted(
                {b.queue for b in found if matches(b.routing_key, routing_key)}
            )

    def add_dead_letter(
        self, name: str, message: Message, expires: float | None
    ) -> None:
        """Keep a dead letter for so many seconds, or as long as the store lives."""
        with self.lock:
            until = math.inf if expires is None else self.clock() + expires
            letter = StoredDeadLetter(next(_numbers), message, until)
            self._dead_letters.setdefault(name, []).append(letter)

    def dead_letters(self, name: str) -> list[StoredDeadLetter]:
        """The dead letters that are not forgotten yet, the oldest first."""
        with self.lock:
            now = self.clock()
            kept = [g for g in self._dead_letters.get(name, []) if g.until > now]
            self._dead_letters[name] = kept
            return list(kept)

    def remove_dead_letter(self, name: str, letter: StoredDeadLetter) -> bool:
        """Remove one dead letter; false if it is gone already."""
        with self.lock:
            letters = self._dead_letters.get(name, [])
            if letter not in letters:
                return False
            letters.remove(letter)
            return True


#: A forked child has stores of its own: no consumer reads the parent's there.
_named: PerProcess[WeakValueDictionary[str, Store]] = PerProcess(WeakValueDictionary)


def get_named_store(name: str) -> Store:
    """The store that all brokers of that name share, as long as one of them lives."""
    return _named.get().setdefault(name, Store())
