"""Bindings in the table ``qconsume_binding``, cached and matched with routing keys."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from dataclasses import dataclass

from ...broker.binding_cache import BindingCache
from ...broker.topic_patterns import matches
from ...broker.topology import Binding
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...errors import UnsupportedByBroker
from . import statements
from .database import CALL_TIMEOUT_SECONDS
from .database import Database
from .database import Step
from .database import TablesMissing


@dataclass(frozen=True, order=True)
class BindingRow:
    """A binding as the table holds it."""

    queue: str
    exchange: str
    pattern: str
    #: ``topic`` or ``direct``.
    kind: str

    def is_bound_for(self, routing_key: str) -> bool:
        """Return whether messages with this routing key go to the queue."""
        if self.kind == "topic":
            return matches(self.pattern, routing_key)
        return self.pattern == routing_key

    @property
    def binding(self) -> Binding:
        return Binding(self.queue, self.exchange, self.pattern)

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the statements that add and remove the row."""
        return {
            "queue_": self.queue,
            "exchange_": self.exchange,
            "pattern_": self.pattern,
            "kind_": self.kind,
        }


class BindingTable:
    """The bindings of all exchanges, read from the database at most once a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache = BindingCache(self.read)

    def find_queues(
        self, exchange: str, routing_key: str, timeout: float
    ) -> tuple[str, ...]:
        """Return the queues that get a message with this routing key.

        The default exchange (``""``) delivers to the queue named by the routing key.
        """
        return self._cache.find_queues(exchange, routing_key, timeout)

    def clear_cache(self) -> None:
        """Forget all cached bindings; the next use reads them from the database."""
        self._cache.clear()

    def read(self, exchange: str, timeout: float | None = None) -> list[BindingRow]:
        """Read the bindings of an exchange; without tables, there are none.

        The default exchange (``""``) has a binding for the name of each queue.
        """
        seconds = CALL_TIMEOUT_SECONDS if timeout is None else timeout
        try:
            return self._read(exchange, seconds)
        except TablesMissing:
            return []

    def _read(self, exchange: str, seconds: float) -> list[BindingRow]:
        if not exchange:
            rows = self._database.read(statements.READ_QUEUES, timeout=seconds)
            return [BindingRow(name, "", name, "direct") for (name,) in rows]
        values = {"exchange_": exchange}
        rows = self._database.read(statements.READ_BINDINGS, values, seconds)
        return [BindingRow(queue, exchange, *rest) for queue, *rest in rows]

    def remove(self, bindings: Iterable[Binding]) -> None:
        """Remove bindings from the table."""
        self._database.write(
            [
                Step(
                    statements.UNBIND,
                    {
                        "queue_": binding.queue,
                        "exchange_": binding.exchange,
                        "pattern_": binding.routing_key,
                    },
                )
                for binding in bindings
            ]
        )
        self.clear_cache()


def list_wanted_bindings(topology: Topology) -> list[BindingRow]:
    """Return the bindings that the app's code declares.

    :raises UnsupportedByBroker: if a queue expires, or its exchange's type is neither
        direct nor topic.
    """
    return sorted({row for plan in topology.queues for row in _list_bindings_of(plan)})


def _list_bindings_of(plan: QueuePlan) -> list[BindingRow]:
    if plan.given is None:
        return [
            BindingRow(b.queue, b.exchange, b.routing_key, "topic")
            for b in plan.bindings
        ]
    queue = plan.given
    if queue.expires is not None or "x-expires" in (queue.queue_arguments or {}):
        raise UnsupportedByBroker(
            f"The queue '{queue.name}' expires ('x-expires'), which a queue in a"
            " database cannot. Give a queue without that."
        )
    pairs = [(b.exchange, b.routing_key) for b in queue.bindings]
    if queue.exchange is not None and queue.exchange.name:
        pairs.append((queue.exchange, queue.routing_key))
    return [_create_row(queue.name, *pair) for pair in pairs]


def _create_row(queue: str, exchange: t.Any, routing_key: str | None) -> BindingRow:
    if exchange.type not in {"direct", "topic"}:
        raise UnsupportedByBroker(
            f"The queue '{queue}' is bound to '{exchange.name}', a {exchange.type}"
            " exchange, which a database does not have. Use a topic exchange with the"
            " routing key '#'."
        )
    return BindingRow(queue, exchange.name, routing_key or "", exchange.type)
