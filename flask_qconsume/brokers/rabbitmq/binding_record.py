"""The bindings that were ever declared, remembered in the broker itself.

AMQP has no question for them, and the management plugin is not everywhere. So the
queue ``<exchange>.bindings`` holds a message with a JSON table, ``{queue: [routing
keys]}``. Two processes that write at the same moment leave two messages, which whoever
reads next makes one again. Bindings that were made by somebody else are not known here.
"""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterable

from amqp.exceptions import NotFound

from ...broker import headers as own_headers
from ...broker.topology import Binding
from ...formats.bounds import check_json
from .declare import Declaring
from .declare import arguments_of

Table = dict[str, set[str]]


class Record:
    """The record of one exchange, over a channel in confirm mode."""

    def __init__(self, channel: t.Any, exchange: str) -> None:
        self._channel = channel
        self._exchange = exchange
        self._queue = record_of(exchange)

    def remember(self, bindings: Iterable[Binding]) -> None:
        """Add bindings that were declared."""
        wanted = _table(bindings)
        self._change(lambda table: _union(table, wanted))

    def forget(self, bindings: Iterable[Binding]) -> None:
        """Leave out bindings that were removed."""
        gone = _table(bindings)
        self._change(
            lambda table: {q: keys - gone.get(q, set()) for q, keys in table.items()}
        )

    def known(self) -> list[Binding]:
        """All bindings on record; none where nothing was ever recorded."""
        try:
            self._channel.queue_declare(self._queue, passive=True)
        except NotFound:
            return []
        table, _, _ = self._read()
        return [
            Binding(queue, self._exchange, key)
            for queue, keys in sorted(table.items())
            for key in sorted(keys)
        ]

    def _change(self, change: t.Callable[[Table], Table]) -> None:
        table, last, count = self._read()
        changed = {queue: keys for queue, keys in change(table).items() if keys}
        if changed == table and count <= 1:
            return
        self._write(changed)
        # Only now: whoever reads meanwhile finds the old one or both, never none.
        if last is not None:
            self._channel.basic_ack(last, multiple=True)

    def _read(self) -> tuple[Table, int | None, int]:
        """All tables on record as one, the last one's tag, and how many there are.

        What is not acknowledged afterwards goes back when the channel is closed.
        """
        Declaring(self._channel, "auto").queue(self._queue, arguments_of("quorum"))
        table: Table = {}
        last, count = None, 0
        while (content := self._channel.basic_get(self._queue)) is not None:
            table = _union(table, _parsed(content.body))
            last, count = content.delivery_tag, count + 1
        return table, last, count

    def _write(self, table: Table) -> None:
        text = json.dumps({queue: sorted(keys) for queue, keys in table.items()})
        message = self._channel.prepare_message(
            text.encode(), properties={"delivery_mode": 2}
        )
        self._channel.basic_publish_confirm(message, routing_key=self._queue)


def record_of(exchange: str) -> str:
    """The queue that remembers the bindings of an exchange."""
    return f"{exchange}.bindings"


def _table(bindings: Iterable[Binding]) -> Table:
    table: Table = {}
    for binding in bindings:
        table.setdefault(binding.queue, set()).add(binding.routing_key)
    return table


def _union(left: Table, right: Table) -> Table:
    queues = {*left, *right}
    return {queue: left.get(queue, set()) | right.get(queue, set()) for queue in queues}


def _parsed(body: bytes) -> Table:
    """What stands there; nonsense counts as an empty table."""
    try:
        check_json(body, own_headers.MAX_ITEMS)
        table = json.loads(body)
        return {str(queue): {str(key) for key in table[queue]} for queue in table}
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
