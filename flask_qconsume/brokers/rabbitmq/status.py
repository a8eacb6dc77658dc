"""How the messages of an app stand on RabbitMQ: what AMQP tells, and what it does not.

AMQP tells how many messages are ready in a queue, and nothing about those that a
consumer has in hand, nor whose the messages in a wait queue are. A message that is due
and refused is not ready in its wait queue either. The management plugin knows the
numbers, if a URL of it is configured; nothing knows whose retries they are.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from amqp.exceptions import ResourceLocked

from ...broker.base import DeadLetters
from ...broker.base import HeldBack
from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.topology import QueuePlan
from ...settings import Settings
from .browse_lock import BeingRead
from .connection import requests
from .connection import virtual_host
from .depth import Unanswered
from .depth import depth
from .management import Management
from .management import Row
from .management import caveats
from .wait_queues import STEPS
from .wait_queues import Step
from .wait_queues import delay_step
from .wait_queues import retry_step


class StatusReader:
    """Reads the status of queues and of the app's wait queues."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def read_statuses(
        self,
        plans: Sequence[QueuePlan],
        letters: t.Callable[[QueuePlan], DeadLetters],
    ) -> list[QueueStatus]:
        """One for each plan."""
        known = self._managed()
        with requests(self._settings, "counting messages") as channel:
            ready = _Ready(channel)
            return [self._of(plan, ready, letters(plan), known) for plan in plans]

    def read_held_back(self, exchange: str) -> HeldBack:
        """What waits in the wait queues of an app's exchange."""
        retries = [retry_step(exchange, seconds) for seconds in STEPS]
        delays = [delay_step(exchange, seconds) for seconds in STEPS]
        known = self._managed()
        with requests(self._settings, "counting what is held back") as channel:
            ready = _Ready(channel)
            return HeldBack(
                _counted(retries, ready),
                _counted(delays, ready),
                None if known is None else _refused([*retries, *delays], known),
            )

    def caveats(self, plans: Sequence[QueuePlan]) -> list[str]:
        """What an operator has set for queues, if the management plugin tells."""
        known = self._managed() or {}
        return [
            text
            for plan in plans
            for name in (*plan.handled_queues, plan.dead)
            for text in caveats(name, known.get(name, {}))
        ]

    def _of(
        self,
        plan: QueuePlan,
        ready: _Ready,
        letters: DeadLetters,
        known: Mapping[str, Row] | None,
    ) -> QueueStatus:
        suspects = ready.count(plan.suspects)
        return QueueStatus(
            waiting=ready.count(plan.name),
            delayed=None,
            in_hand=None if known is None else _in_hand(plan, known),
            suspects=None if suspects is None else SuspectsStatus(suspects),
            dead_letters=_all_of(letters),
        )

    def _managed(self) -> dict[str, Row] | None:
        url = self._settings.management_url
        if not url:
            return None
        return Management(url, virtual_host(self._settings)).queues()


class _Ready:
    """Counts the messages that are ready in queues."""

    def __init__(self, channel: t.Any) -> None:
        self._channel = channel

    def count(self, queue: str) -> int | None:
        """``None`` for one that does not answer, or is another connection's own."""
        if not self._channel.is_open:
            # The broker closes it with each refusal; its number is used again.
            connection = self._channel.connection
            self._channel.collect()
            self._channel = connection.channel()
        try:
            return depth(self._channel, queue)
        except (ResourceLocked, Unanswered):
            return None


def _counted(steps: Iterable[Step], ready: _Ready) -> dict[int, int | None]:
    """Without those that hold nothing."""
    counts = {step.seconds: ready.count(step.name) for step in steps}
    return {seconds: count for seconds, count in counts.items() if count != 0}


def _in_hand(plan: QueuePlan, known: Mapping[str, Row]) -> int | None:
    """``None`` while the plugin knows nothing of one of the queues yet."""
    counts = [
        known.get(name, {}).get("messages_unacknowledged")
        for name in plan.handled_queues
    ]
    found = [count for count in counts if count is not None]
    return sum(found) if len(found) == len(counts) else None


def _refused(steps: Iterable[Step], known: Mapping[str, Row]) -> int:
    return sum(known.get(step.name, {}).get("messages_dlx", 0) for step in steps)


def _all_of(letters: DeadLetters) -> int | None:
    try:
        return letters.count()
    except (BeingRead, Unanswered):
        return None
