"""Counts of an app's queues on RabbitMQ, read every few seconds by one connection.

A new connection for each reading would fill RabbitMQ's log, and so would a request that
RabbitMQ refuses. So the connection stays open, and no request asks for what is missing.
RabbitMQ closes the connection if two intervals of the heartbeat pass without a reading.
"""

from __future__ import annotations

from collections.abc import Sequence

from amqp.exceptions import AccessRefused
from amqp.exceptions import ResourceLocked

from ...broker.base import QueueStatus
from ...broker.topology import QueuePlan
from ...settings import Settings
from .amqp.transport import Connection
from .browse_lock import lock_queue_name
from .connection import disconnect
from .connection import open_connection
from .errors import LOST
from .errors import translate_error
from .status import ReadyCounter
from .status import Rows
from .status import count_messages
from .status import fetch_rows

#: What the connection is for, in its name and in errors.
_PURPOSE = "counting messages"


class RabbitBacklog:
    """Counts the messages in queues again and again. Calls must not overlap."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        #: False once RabbitMQ has denied the request that looks for a lock.
        self._may_look_for_locks = True

    def read(self, plans: Sequence[QueuePlan], timeout: float) -> list[QueueStatus]:
        """Return the status of each queue.

        :param timeout: Seconds that one answer of the broker may take.
        :raises BrokerError: if the broker does not answer, or refuses the connection.
        """
        rows = fetch_rows(self._settings)
        kept, self._connection = self._connection, None
        if kept is not None:
            try:
                return self._count(plans, kept, rows)
            except LOST:
                pass  # The broker was restarted, or there was no reading for long.
        connection = open_connection(self._settings, _PURPOSE)
        try:
            connection.sock.settimeout(timeout)
            return self._count(plans, connection, rows)
        except LOST as error:
            raise translate_error(error, f"RabbitMQ: {_PURPOSE} failed") from error

    def close(self) -> None:
        """Close the connection, if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            disconnect(connection)

    def _count(
        self, plans: Sequence[QueuePlan], connection: Connection, rows: Rows
    ) -> list[QueueStatus]:
        """Return the status of each queue, and keep the connection if that succeeds."""
        try:
            counter = ReadyCounter(connection.channel())
            found = [
                count_messages(
                    plan, counter, self._count_dead(plan, counter, rows), rows
                )
                for plan in plans
            ]
            counter.channel.close()
            self._connection = connection
        finally:
            if self._connection is not connection:
                disconnect(connection)
        return found

    def _count_dead(
        self, plan: QueuePlan, counter: ReadyCounter, rows: Rows
    ) -> int | None:
        """Count the dead letters; ``None`` while another process holds some of them."""
        # Free before and after: the lock's holder keeps some dead letters, or all.
        if self._is_lock_free(plan, counter):
            count = counter.count(plan.dead)
            if self._is_lock_free(plan, counter):
                return count
        return None if rows is None else rows.get(plan.dead, {}).get("messages")

    def _is_lock_free(self, plan: QueuePlan, counter: ReadyCounter) -> bool:
        """Return whether no process reads the dead letters of a queue.

        RabbitMQ refuses to delete the exclusive queue of another connection, and does
        not refuse to delete a queue that does not exist.
        """
        if self._may_look_for_locks:
            try:
                counter.channel.queue_delete(lock_queue_name(plan.dead))
            except ResourceLocked:
                return False
            except AccessRefused:
                self._may_look_for_locks = False
        return self._may_look_for_locks
