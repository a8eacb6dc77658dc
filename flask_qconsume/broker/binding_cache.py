"""Bindings that the broker stores, cached and matched with routing keys."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

#: Seconds for which cached bindings are used.
_MAX_CACHE_AGE_SECONDS = 1.0
#: Limits the memory for routing keys, which a publisher may choose freely.
_MAX_CACHED_ROUTING_KEYS = 10_000


class BoundQueue(t.Protocol):
    """A binding as a broker stores it."""

    @property
    def queue(self) -> str:
        """The name of the queue that gets the messages."""

    def is_bound_for(self, routing_key: str) -> bool:
        """Return whether messages with this routing key go to the queue."""


#: Function that reads the bindings of an exchange. Its arguments are the name of
#: the exchange and a time limit in seconds.
ReadExchange = t.Callable[[str, float | None], Sequence[BoundQueue]]


@dataclass(frozen=True)
class _CachedExchange:
    """The bindings of one exchange, and the queues that routing keys have matched."""

    entries: tuple[BoundQueue, ...]
    read_at: float
    queues_by_key: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def is_old(self) -> bool:
        return time.monotonic() - self.read_at > _MAX_CACHE_AGE_SECONDS

    def find_queues(self, routing_key: str) -> tuple[str, ...]:
        bound_queues = self.queues_by_key.get(routing_key)
        if bound_queues is None:
            names = {m.queue for m in self.entries if m.is_bound_for(routing_key)}
            bound_queues = tuple(sorted(names))
            if len(self.queues_by_key) < _MAX_CACHED_ROUTING_KEYS:
                self.queues_by_key[routing_key] = bound_queues
        return bound_queues


class BindingCache:
    """The bindings of all exchanges, each read from the broker at most once a second.

    :param read: Function that reads the bindings of an exchange.
    """

    def __init__(self, read: ReadExchange) -> None:
        self._read = read
        self._exchanges: dict[str, _CachedExchange] = {}

    def find_queues(
        self, exchange: str, routing_key: str, timeout: float | None = None
    ) -> tuple[str, ...]:
        """Return the queues that get a message with this routing key."""
        cached = self._exchanges.get(exchange)
        if cached is None or cached.is_old():
            cached = self._read_exchange(exchange, timeout)
        return cached.find_queues(routing_key)

    def clear(self) -> None:
        """Forget all cached bindings; the next use reads them from the broker."""
        self._exchanges.clear()

    def _read_exchange(self, exchange: str, timeout: float | None) -> _CachedExchange:
        # The time before the read, which may miss a binding that is added meanwhile.
        now = time.monotonic()
        cached = _CachedExchange(tuple(self._read(exchange, timeout)), now)
        self._exchanges[exchange] = cached
        return cached
