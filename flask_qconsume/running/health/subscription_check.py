"""Collects facts about one subscription, by which its health is judged."""

from __future__ import annotations

import time

from ...broker import headers
from ...broker.base import SuspectsStatus
from ...broker.link import PARKED_RETRY_SECONDS
from ...broker.link import Lane
from ...logs import get_logger
from ..subscription import Subscription
from .condition_timer import ConditionTimer
from .facts import HealthLimits
from .facts import SubscriptionFacts
from .starvation import ANSWERS
from .starvation import Starvation
from .verdict import SuspectBacklog
from .verdict import find_largest

logger = get_logger("flask_qconsume.watchdog")


class SubscriptionCheck:
    """Checks one subscription each second, and measures how long problems last.

    :param interval: Seconds between two checks.
    """

    def __init__(
        self, subscription: Subscription, limits: HealthLimits, interval: float
    ) -> None:
        self._subscription = subscription
        self._context = subscription.context
        self._settling = ConditionTimer(interval)
        self._stuck = ConditionTimer(interval)
        self._starvation = Starvation(limits.stalled)
        self._is_of_suspects = self._context.lane is Lane.SUSPECTS
        self._ask_interval = limits.stalled / ANSWERS
        self._asked_at = time.monotonic()
        self._waiting: int | None = None
        self._oldest: float | None = None

    def is_due(self, now: float) -> bool:
        """Return whether to ask the broker how many messages wait.

        The broker is asked if the subscription has been idle for some time. For a queue
        of suspects (messages that may have killed a process), the broker is asked at
        regular intervals: suspects are handled one at a time, so some may wait while
        one is handled.
        """
        reader = self._subscription.connection.reader
        received = 0 if reader is None else reader.received
        idle = self._subscription.connected and self._is_idle()
        idle_for_long = self._starvation.look(now, received, idle)
        interval_is_over = now - self._asked_at >= self._ask_interval
        return idle_for_long or (self._is_of_suspects and interval_is_over)

    def ask(self) -> None:
        """Ask the broker how many messages wait; this may take long."""
        try:
            found: SuspectsStatus | None = self._subscription.count_waiting()
        except Exception as error:
            # The connections that need the broker report its failure.
            logger.debug("Cannot count '%s': %s", self._context.queue, error)
            found = None
        self._asked_at = time.monotonic()
        if found is None:
            self._waiting = self._oldest = None
            self._starvation.note_backlog(self._asked_at, 0)
            return
        self._waiting, self._oldest = found.waiting, _find_age(found.since)
        if self._is_idle():
            self._starvation.note_backlog(self._asked_at, found.waiting)

    def collect(self) -> SubscriptionFacts:
        """Return the present facts; call this once in each check."""
        subscription = self._subscription
        settler, processing = subscription.settler, subscription.processing
        settling, stuck = settler.settling, processing.handlers.stuck
        return SubscriptionFacts(
            name=subscription.name,
            queue=self._context.queue,
            connected=subscription.connected,
            tended=subscription.connection.is_running and settler.is_running,
            timeout=self._context.consumer.timeout,
            overdue=processing.overdue,
            concurrency=self._context.concurrency,
            unsettled=len(settling),
            unsettled_for=self._settling.look(settling),
            retries_forwards=settler.retries_forwards,
            parks=time.monotonic() - settler.parked_at < 2 * PARKED_RETRY_SECONDS,
            stuck_for=self._stuck.look([] if stuck is None else [stuck]),
            starved_for=self._starvation.seconds,
            backlog=self._starvation.backlog,
            suspects=self._find_suspects() if self._is_of_suspects else None,
        )

    def _is_idle(self) -> bool:
        processing = self._subscription.processing
        handlers, reader = processing.handlers, self._subscription.connection.reader
        busy = handlers.busy or handlers.waiting or processing.held
        may_starve = reader is not None and reader.link.may_starve
        return not (busy or may_starve or self._subscription.settler.settling)

    def _find_suspects(self) -> SuspectBacklog:
        # The oldest message at the broker's last answer may be handled by now, so the
        # age in that answer is not increased with time.
        in_hand = (each.message for each in self._subscription.connection.unsettled)
        age = _find_age(headers.find_oldest_suspect(in_hand))
        oldest = find_largest(age, self._oldest)
        return SuspectBacklog(self._context.consumer.name, self._waiting, oldest)


def _find_age(since: float | None) -> float | None:
    # The clock of the host that wrote the time may be ahead of this one's.
    return None if since is None else max(0.0, time.time() - since)
