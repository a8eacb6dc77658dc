"""Bindings kept in Redis in kombu's format, cached and matched with routing keys.

The bindings of an exchange are a set. Each of its members has three parts: routing key,
pattern, queue. The pattern is for kombu's own producers, and empty for a direct
exchange. This package matches routing keys as AMQP defines it.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from dataclasses import dataclass

from kombu.transport.virtual.exchange import TopicExchange

from ...broker.binding_cache import BindingCache
from ...broker.topic_patterns import matches
from ...broker.topology import Binding
from ...broker.topology import Topology
from ...errors import UnsupportedByBroker
from .connections import Command
from .keys import Layout
from .server import Server

_create_kombu_pattern: t.Any = t.cast(t.Any, TopicExchange)(None).key_to_pattern


@dataclass(frozen=True, order=True)
class BindingEntry:
    """A binding as kombu stores it: a member of the set of its exchange's bindings."""

    exchange: str
    routing_key: str
    pattern: str
    queue: str

    def is_bound_for(self, routing_key: str) -> bool:
        """Return whether messages with this routing key go to the queue."""
        if self.pattern:
            return matches(self.routing_key, routing_key)
        return self.routing_key == routing_key

    @property
    def binding(self) -> Binding:
        return Binding(self.queue, self.exchange, self.routing_key)


class Bindings:
    """The bindings of all exchanges, read from Redis at most once a second."""

    def __init__(self, server: Server, layout: Layout) -> None:
        self._server = server
        self._layout = layout
        self._cache = BindingCache(self.read_entries)

    def find_queues(
        self, exchange: str, routing_key: str, timeout: float | None = None
    ) -> tuple[str, ...]:
        """Return the queues that get a message with this routing key.

        The default exchange (``""``) delivers to the queue named by the routing key.
        """
        if not exchange:
            return (routing_key,)
        return self._cache.find_queues(exchange, routing_key, timeout)

    def clear_cache(self) -> None:
        """Forget all cached bindings; the next use reads them from Redis."""
        self._cache.clear()

    def read_entries(
        self, exchange: str, timeout: float | None = None
    ) -> list[BindingEntry]:
        """Read the bindings of an exchange from Redis."""
        key = self._layout.binding_keys(exchange)[0]
        raw = self._server.send_commands([("SMEMBERS", key)], timeout)[0]
        entry_parts = (
            m.decode("utf-8", "replace").split(self._layout.sep) for m in raw
        )
        return sorted(BindingEntry(exchange, *p) for p in entry_parts if len(p) == 3)

    def add(
        self, entries: Iterable[BindingEntry], timeout: float | None = None
    ) -> None:
        """Add bindings in Redis; existing bindings stay."""
        self._write("SADD", entries, timeout)

    def remove(self, bindings: Iterable[Binding]) -> None:
        removed_bindings = set(bindings)
        for exchange in sorted({binding.exchange for binding in removed_bindings}):
            entries = self.read_entries(exchange)
            self._write("SREM", [m for m in entries if m.binding in removed_bindings])

    def _write(
        self, verb: str, entries: Iterable[BindingEntry], timeout: float | None = None
    ) -> None:
        commands: list[Command] = []
        for entry in entries:
            text = self._layout.sep.join(
                (entry.routing_key, entry.pattern, entry.queue)
            )
            keys = self._layout.binding_keys(entry.exchange)
            commands.extend((verb, key, text) for key in keys)
        self._server.send_commands(commands, timeout)
        self.clear_cache()


def list_wanted_bindings(topology: Topology) -> list[BindingEntry]:
    """Return the bindings that the app's code declares, in kombu's format.

    :raises UnsupportedByBroker: if a queue expires, or its exchange's type is neither
        direct nor topic.
    """
    ours = [
        BindingEntry(
            b.exchange, b.routing_key, _create_kombu_pattern(b.routing_key), b.queue
        )
        for b in topology.bindings
    ]
    given_queues = [plan.given for plan in topology.queues if plan.given is not None]
    return sorted(
        {*ours, *(m for queue in given_queues for m in _list_bindings_of(queue))}
    )


def _list_bindings_of(queue: t.Any) -> list[BindingEntry]:
    if queue.expires is not None or "x-expires" in (queue.queue_arguments or {}):
        raise UnsupportedByBroker(
            f"The queue '{queue.name}' expires ('x-expires'), and on Redis its messages"
            " would expire with it. Give a queue without that."
        )
    pairs = [(b.exchange, b.routing_key) for b in queue.bindings]
    if queue.exchange is not None and queue.exchange.name:
        pairs.append((queue.exchange, queue.routing_key))
    return [_create_entry(queue.name, *pair) for pair in pairs]


def _create_entry(queue: str, exchange: t.Any, routing_key: str | None) -> BindingEntry:
    if exchange.type not in {"direct", "topic"}:
        raise UnsupportedByBroker(
            f"The queue '{queue}' is bound to '{exchange.name}', a {exchange.type}"
            " exchange; on Redis that would not be kept for a worker that is away. Use"
            " a topic exchange with the routing key '#'."
        )
    key = routing_key or ""
    return BindingEntry(
        exchange.name,
        key,
        _create_kombu_pattern(key) if exchange.type == "topic" else "",
        queue,
    )
