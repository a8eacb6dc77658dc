"""Publishes messages: a row for each queue that is bound for the message."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker.compose import make_unroutable_error
from ...broker.group_commit import GroupCommit
from ...broker.group_publisher import GroupPublisher
from ...broker.publish_request import PublishRequest
from ...broker.publish_request import RequestMessage
from ...broker.publish_request import RoundTrip
from ...errors import BrokerUnavailable
from ...errors import PublishRefused
from ...message import Outgoing
from .app_database import AppDatabase
from .bindings import BindingTable
from .database import Insert
from .database import NewMessage
from .rows import encode_outgoing


class SqlPublisher(GroupPublisher):
    """Publishes messages; those of one round trip are stored in one transaction."""

    def __init__(
        self,
        shared: AppDatabase,
        bindings: BindingTable,
        prepare: Callable[[], None],
        declare_again: Callable[[], None],
    ) -> None:
        super().__init__(shared.database.name)
        self._shared = shared
        self._bindings = bindings
        self._declare_once = prepare
        self._declare_again = declare_again

    def _group_commit(self) -> GroupCommit:
        return self._shared.group_commit

    def _prepare(self, seconds_left: float) -> None:
        self._declare_once()

    def _send(self, trip: RoundTrip, leader: PublishRequest) -> None:
        self._shared.database.check_room()
        rows = {
            (batch, number): self._create_rows_or_settle(
                batch, number, leader.seconds_left
            )
            for batch, number in trip
        }
        self._store({each: found for each, found in rows.items() if found}, leader)

    def _store(
        self, rows: Mapping[RequestMessage, list[NewMessage]], leader: PublishRequest
    ) -> None:
        """Store messages in one transaction, and settle them."""
        if not rows:
            return
        stored = [row for some in rows.values() for row in some]
        try:
            self._shared.database.write([Insert(stored)], leader.seconds_left)
        except PublishRefused as error:
            self._settle_refused(rows, leader, error)
            return
        for batch, number in rows:
            batch.settle(number, None)
        self._announce(stored)

    def _settle_refused(
        self,
        rows: Mapping[RequestMessage, list[NewMessage]],
        leader: PublishRequest,
        error: PublishRefused,
    ) -> None:
        """Store each message alone, since the database has refused one of them."""
        if len(rows) == 1:
            for batch, number in rows:
                batch.settle(number, error)
            return
        for each, found in rows.items():
            self._store({each: found}, leader)

    def _announce(self, rows: Sequence[NewMessage]) -> None:
        if rows:
            delayed = any(row.delay is not None for row in rows)
            self._shared.watcher.announce({row.queue for row in rows}, delayed)

    def _create_rows_or_settle(
        self, batch: PublishRequest, number: int, seconds_left: float
    ) -> list[NewMessage]:
        """Create the rows of a message; without rows, set the message's result."""
        message = batch.messages[number]
        try:
            queues = self._find_queues(message, seconds_left)
            rows = encode_outgoing(message, queues)
        except BrokerUnavailable:
            raise
        except Exception as error:
            # The error concerns this message only, not the messages sent with it.
            batch.settle(number, error)
            return []
        if not rows:
            batch.settle(number, None)
        return rows

    def _find_queues(self, message: Outgoing, seconds_left: float) -> tuple[str, ...]:
        exchange, key = message.exchange, message.routing_key
        queues = self._bindings.find_queues(exchange, key, seconds_left)
        if queues or not message.mandatory:
            return queues
        # The cache may be old, or the tables may have been emptied.
        self._bindings.clear_cache()
        self._declare_again()
        queues = self._bindings.find_queues(exchange, key, seconds_left)
        if not queues:
            raise make_unroutable_error(message)
        return queues
