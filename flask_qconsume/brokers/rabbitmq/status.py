"""The status of an app's queues on RabbitMQ.

AMQP tells how many messages are ready in a queue. It does not tell how many a consumer
holds, for which queue a message in a wait queue is, nor how many due messages were
refused by their queue (these are not ready in their wait queue either). The management
plugin tells the numbers, if its URL is configured, but not for which queue a waiting
message is.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from amqp.exceptions import ResourceLocked

from ...broker.base import HeldBack
from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.dead_letters import DeadLetters
from ...broker.topology import QueuePlan
from ...settings import Settings
from .browse_lock import QueueBeingRead
from .connection import find_virtual_host
from .connection import open_channel
from .depth import QueueUnresponsive
from .depth import count_ready
from .management import Management
from .management import QueueRow
from .management import list_caveats
from .wait_queues import WAIT_QUEUE_SECONDS
from .wait_queues import WaitQueue
from .wait_queues import choose_delay_queue
from .wait_queues import choose_retry_queue

#: Rows of the management plugin by queue; ``None`` if it is not configured.
Rows = Mapping[str, QueueRow] | None


class StatusReader:
    """Counts the messages in an app's queues and in its wait queues."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def read_statuses(
        self,
        plans: Sequence[QueuePlan],
        dead_letters: t.Callable[[QueuePlan], DeadLetters],
    ) -> list[QueueStatus]:
        """Return the status of each queue.

        :param dead_letters: Returns the dead letters of a queue.
        """
        rows = fetch_rows(self._settings)
        with open_channel(self._settings, "counting messages") as channel:
            counter = ReadyCounter(channel)
            return [
                count_messages(
                    plan, counter, _count_dead_letters(dead_letters(plan)), rows
                )
                for plan in plans
            ]

    def read_held_back(self, exchange: str) -> HeldBack:
        """Count the delayed messages in the wait queues of an app."""
        retries = [choose_retry_queue(exchange, s) for s in WAIT_QUEUE_SECONDS]
        delays = [choose_delay_queue(exchange, s) for s in WAIT_QUEUE_SECONDS]
        rows = fetch_rows(self._settings)
        with open_channel(self._settings, "counting what is held back") as channel:
            counter = ReadyCounter(channel)
            return HeldBack(
                _count_waiting(retries, counter),
                _count_waiting(delays, counter),
                None if rows is None else _count_refused([*retries, *delays], rows),
            )

    def caveats(self, plans: Sequence[QueuePlan]) -> list[str]:
        """Return warnings about settings of RabbitMQ that may lose messages.

        The settings come from the management plugin; without its URL the list is empty.
        """
        rows = fetch_rows(self._settings) or {}
        return [
            text
            for plan in plans
            for name in (*plan.handled_queues, plan.dead)
            for text in list_caveats(name, rows.get(name, {}))
        ]


def fetch_rows(settings: Settings) -> Rows:
    """Fetch the rows of the management plugin, if it is configured."""
    url = settings.management_url
    if not url:
        return None
    return Management(url, find_virtual_host(settings)).queues()


def count_messages(
    plan: QueuePlan, counter: ReadyCounter, dead_letters: int | None, rows: Rows
) -> QueueStatus:
    """Return the status of a queue.

    RabbitMQ does not tell since when a message is ready. A classic queue may tell the
    time at which its next message was published, which is too early for a retry.
    """
    suspects = counter.count(plan.suspects)
    return QueueStatus(
        waiting=counter.count(plan.name),
        delayed=None,
        in_hand=None if rows is None else _count_in_hand(plan, rows),
        suspects=None if suspects is None else SuspectsStatus(suspects),
        dead_letters=dead_letters,
    )


class ReadyCounter:
    """Counts the ready messages of queues, on a channel that it keeps open."""

    def __init__(self, channel: t.Any) -> None:
        self._channel = channel

    @property
    def channel(self) -> t.Any:
        """The open channel; a new one if the broker has closed it with a refusal."""
        if not self._channel.is_open:
            connection = self._channel.connection
            self._channel.collect()  # Frees the channel's number.
            self._channel = connection.channel()
        return self._channel

    def count(self, queue: str) -> int | None:
        """Count the ready messages of one queue.

        :returns: ``None`` if the queue does not answer, or is exclusive to another
            connection.
        """
        try:
            return count_ready(self.channel, queue)
        except (ResourceLocked, QueueUnresponsive):
            return None


def _count_waiting(
    queues: Iterable[WaitQueue], counter: ReadyCounter
) -> dict[int, int | None]:
    """Count the messages of each wait queue; the keys are the delays in seconds."""
    counts = {queue.seconds: counter.count(queue.name) for queue in queues}
    return {seconds: count for seconds, count in counts.items() if count != 0}


def _count_in_hand(plan: QueuePlan, rows: Mapping[str, QueueRow]) -> int | None:
    """Sum up the messages that consumers hold; ``None`` if a number is unknown."""
    counts = [
        rows.get(name, {}).get("messages_unacknowledged")
        for name in plan.handled_queues
    ]
    known_counts = [count for count in counts if count is not None]
    return sum(known_counts) if len(known_counts) == len(counts) else None


def _count_refused(queues: Iterable[WaitQueue], rows: Mapping[str, QueueRow]) -> int:
    return sum(rows.get(queue.name, {}).get("messages_dlx", 0) for queue in queues)


def _count_dead_letters(letters: DeadLetters) -> int | None:
    try:
        return letters.count()
    except (QueueBeingRead, QueueUnresponsive):
        return None
