"""kombu's bindings: read and cached, written, compared. Routes a routing key.

A binding is a member ``routing key, pattern, queue`` of its exchange's set. The pattern
is kombu's own, for kombu's producers; a direct exchange has none. We match the routing
key as AMQP defines it.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field

from kombu.transport.virtual.exchange import TopicExchange

from ...broker.topic_patterns import matches
from ...broker.topology import Binding
from ...broker.topology import Topology
from ...errors import UnsupportedByBroker
from .server import Command
from .server import Server

#: Seconds that bindings are remembered.
_FRESH = 1.0
#: Routing keys remembered per exchange in that time.
_REMEMBERED = 10_000

_pattern: t.Any = t.cast(t.Any, TopicExchange)(None).key_to_pattern


@dataclass(frozen=True, order=True)
class BindingEntry:
    """One member of an exchange's set."""

    exchange: str
    routing_key: str
    pattern: str
    queue: str

    def takes(self, routing_key: str) -> bool:
        """Whether the queue gets what is published with this routing key."""
        if self.pattern:
            return matches(self.routing_key, routing_key)
        return self.routing_key == routing_key

    @property
    def binding(self) -> Binding:
        return Binding(self.queue, self.exchange, self.routing_key)


class _ExchangeKeys(t.Protocol):
    """What is to be known of a layout here."""

    @property
    def sep(self) -> str: ...

    def binding_keys(self, exchange: str) -> list[str]: ...


@dataclass(frozen=True)
class _Table:
    """What was read of one exchange."""

    members: tuple[BindingEntry, ...]
    read_at: float
    found: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def queues(self, routing_key: str) -> tuple[str, ...]:
        known = self.found.get(routing_key)
        if known is None:
            names = {m.queue for m in self.members if m.takes(routing_key)}
            known = tuple(sorted(names))
            if len(self.found) < _REMEMBERED:
                self.found[routing_key] = known
        return known


class Bindings:
    """Which queues are bound to which exchange."""

    def __init__(self, server: Server, layout: _ExchangeKeys) -> None:
        self._server = server
        self._layout = layout
        self._tables: dict[str, _Table] = {}

    def queues(
        self, exchange: str, routing_key: str, timeout: float | None = None
    ) -> tuple[str, ...]:
        """The queues that get it; the default exchange knows each queue by its name."""
        if not exchange:
            return (routing_key,)
        table = self._tables.get(exchange)
        if table is None or time.monotonic() - table.read_at > _FRESH:
            table = self._table(exchange, timeout)
        return table.queues(routing_key)

    def forget(self) -> None:
        """Read everything again when it is asked for."""
        self._tables.clear()

    def read_entries(
        self, exchange: str, timeout: float | None = None
    ) -> list[BindingEntry]:
        """All bindings of an exchange, as they are now."""
        key = self._layout.binding_keys(exchange)[0]
        raw = self._server.commands([("SMEMBERS", key)], timeout)[0]
        parts = (m.decode("utf-8", "replace").split(self._layout.sep) for m in raw)
        return sorted(BindingEntry(exchange, *p) for p in parts if len(p) == 3)

    def add(
        self, members: Iterable[BindingEntry], timeout: float | None = None
    ) -> None:
        """Bind; what is bound already stays as it is."""
        self._write("SADD", members, timeout)

    def remove(self, bindings: Iterable[Binding]) -> None:
        """Unbind."""
        wanted = set(bindings)
        for exchange in sorted({binding.exchange for binding in wanted}):
            found = self.read_entries(exchange)
            self._write("SREM", [m for m in found if m.binding in wanted])

    def _write(
        self, verb: str, members: Iterable[BindingEntry], timeout: float | None = None
    ) -> None:
        commands: list[Command] = []
        for m in members:
            text = self._layout.sep.join((m.routing_key, m.pattern, m.queue))
            keys = self._layout.binding_keys(m.exchange)
            commands.extend((verb, key, text) for key in keys)
        self._server.commands(commands, timeout)
        self.forget()

    def _table(self, exchange: str, timeout: float | None) -> _Table:
        # The time before the read: what is bound meanwhile may be missing.
        now = time.monotonic()
        table = _Table(tuple(self.read_entries(exchange, timeout)), now)
        self._tables[exchange] = table
        return table


def list_wanted_bindings(topology: Topology) -> list[BindingEntry]:
    """Every binding that the code asks for, as kombu would write it.

    :raises UnsupportedByBroker: for a given queue that cannot be had here.
    """
    ours = [
        BindingEntry(b.exchange, b.routing_key, _pattern(b.routing_key), b.queue)
        for b in topology.bindings
    ]
    given = [plan.given for plan in topology.queues if plan.given is not None]
    return sorted({*ours, *(m for queue in given for m in _of_given(queue))})


def _of_given(queue: t.Any) -> list[BindingEntry]:
    """The bindings of a :class:`kombu.Queue`."""
    if queue.expires is not None or "x-expires" in (queue.queue_arguments or {}):
        raise UnsupportedByBroker(
            f"The queue '{queue.name}' expires ('x-expires'), and on Redis its messages"
            " would expire with it. Give a queue without that."
        )
    pairs = [(b.exchange, b.routing_key) for b in queue.bindings]
    if queue.exchange is not None and queue.exchange.name:
        pairs.append((queue.exchange, queue.routing_key))
    return [_of_pair(queue.name, *pair) for pair in pairs]


def _of_pair(queue: str, exchange: t.Any, routing_key: str | None) -> BindingEntry:
    if exchange.type not in {"direct", "topic"}:
        raise UnsupportedByBroker(
            f"The queue '{queue}' is bound to '{exchange.name}', a {exchange.type}"
            " exchange; on Redis that would not be kept for a worker that is away. Use"
            " a topic exchange with the routing key '#'."
        )
    key = routing_key or ""
    return BindingEntry(
        exchange.name, key, _pattern(key) if exchange.type == "topic" else "", queue
    )
