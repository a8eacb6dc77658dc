"""A record of the bindings that were declared, kept in a queue on the broker.

AMQP cannot list bindings, and not every broker has the management plugin. So the queue
``<exchange>.bindings`` holds a message with a JSON table, ``{queue: [routing keys]}``.
Two processes that write at the same moment leave two messages, which the next change
merges. The record does not know bindings that other programs made.
"""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterable

from amqp.exceptions import NotFound

from ...broker import headers as own_headers
from ...broker.topology import Binding
from ...formats.bounds import check_json
from .declare import Declarer
from .declare import queue_arguments

#: Routing keys by queue.
Table = dict[str, set[str]]


class BindingRecord:
    """A list of the bindings to one exchange, kept in messages on the broker.

    :param channel: A channel in confirm mode.
    """

    def __init__(self, channel: t.Any, exchange: str) -> None:
        self._channel = channel
        self._exchange = exchange
        self._queue = record_queue_name(exchange)

    def add(self, bindings: Iterable[Binding]) -> None:
        added = _build_table(bindings)
        self._change(lambda table: _merge(table, added))

    def remove(self, bindings: Iterable[Binding]) -> None:
        removed = _build_table(bindings)
        self._change(
            lambda table: {q: keys - removed.get(q, set()) for q, keys in table.items()}
        )

    def read(self) -> list[Binding]:
        """Return the stored bindings; an empty list if the queue does not exist."""
        try:
            self._channel.queue_declare(self._queue, passive=True)
        except NotFound:
            return []
        table, _, _ = self._fetch()
        return [
            Binding(queue, self._exchange, key)
            for queue, keys in sorted(table.items())
            for key in sorted(keys)
        ]

    def _change(self, change: t.Callable[[Table], Table]) -> None:
        table, last_tag, count = self._fetch()
        changed = {queue: keys for queue, keys in change(table).items() if keys}
        if changed == table and count <= 1:
            return
        self._publish(changed)
        # Removed only now, so that a process that reads meanwhile finds the old table
        # or both, and never none.
        if last_tag is not None:
            self._channel.basic_ack(last_tag, multiple=True)

    def _fetch(self) -> tuple[Table, int | None, int]:
        """Read the messages that record bindings; they return when the channel closes.

        :returns: The routing keys by queue, merged from all messages; the last delivery
            tag (``None`` without a message); and the number of messages.
        """
        declarer = Declarer(self._channel, "auto")
        declarer.declare_queue(self._queue, queue_arguments("quorum"))
        table: Table = {}
        last_tag, count = None, 0
        while (content := self._channel.basic_get(self._queue)) is not None:
            table = _merge(table, _parse(content.body))
            last_tag, count = content.delivery_tag, count + 1
        return table, last_tag, count

    def _publish(self, table: Table) -> None:
        text = json.dumps({queue: sorted(keys) for queue, keys in table.items()})
        message = self._channel.prepare_message(
            text.encode(), properties={"delivery_mode": 2}
        )
        self._channel.basic_publish_confirm(message, routing_key=self._queue)


def record_queue_name(exchange: str) -> str:
    """Return the name of the queue that records an exchange's bindings."""
    return f"{exchange}.bindings"


def _build_table(bindings: Iterable[Binding]) -> Table:
    table: Table = {}
    for binding in bindings:
        table.setdefault(binding.queue, set()).add(binding.routing_key)
    return table


def _merge(first: Table, second: Table) -> Table:
    queues = {*first, *second}
    return {
        queue: first.get(queue, set()) | second.get(queue, set()) for queue in queues
    }


def _parse(body: bytes) -> Table:
    """Parse routing keys by queue from JSON; return ``{}`` if the JSON is invalid."""
    try:
        check_json(body, own_headers.MAX_ITEMS)
        table = json.loads(body)
        return {str(queue): {str(key) for key in table[queue]} for queue in table}
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
