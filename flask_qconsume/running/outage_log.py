"""Logs an outage once for all consumers of a worker, then a reminder now and then.

When the broker fails, all subscriptions of a worker lose their connections, and try
again until they are connected. The same failure of several subscriptions is one outage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..errors import BrokerError
from ..errors import BrokerUnavailable
from ..logs import get_logger
from ..text import escape
from ..text import pluralize

logger = get_logger("flask_qconsume.outages")

#: Seconds from the first line about an outage to the second line. The interval doubles
#: after each line, up to the longest.
_FIRST_INTERVAL, _LONGEST_INTERVAL = 10.0, 600.0


class _Outage:
    """One cause for which subscriptions are not connected, with their names."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.subscriptions: set[str] = set()
        self._next, self._interval = now, _FIRST_INTERVAL

    def is_due(self, now: float) -> bool:
        """Return whether a reminder is due; reminders become rarer each time."""
        if now < self._next:
            return False
        self._next = now + self._interval
        self._interval = min(2 * self._interval, _LONGEST_INTERVAL)
        return True


class OutageLog:
    """Logs outages of the broker, once for all subscriptions of a worker.

    The first line about an outage and the reminders have the level ERROR, all other
    lines the level DEBUG.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._outages: dict[str, _Outage] = {}

    def log_failure(self, subscription: str, text: str, error: BaseException) -> None:
        """Log that a subscription lost its connection, or cannot connect.

        :param subscription: The subscription's name.
        :param text: Says what failed, and what the subscription does now.
        """
        now, cause = self._clock(), _find_cause(error)
        self._remove_subscription(subscription, but=cause)
        outage = self._outages.setdefault(cause, _Outage(now))
        outage.subscriptions.add(subscription)
        is_due = outage.is_due(now)
        logger.log(
            logging.ERROR if is_due else logging.DEBUG,
            "%s: %s: %s%s",
            subscription,
            text,
            escape(error),
            _describe_extent(outage, now),
            exc_info=error if is_due and not isinstance(error, BrokerError) else None,
        )

    def log_recovery(self, subscription: str) -> None:
        """Note that a subscription is connected; log outages that have ended."""
        for outage in self._remove_subscription(subscription):
            logger.warning("Connected again after %.0f s", self._clock() - outage.began)

    def _remove_subscription(self, subscription: str, but: str = "") -> list[_Outage]:
        for cause, outage in self._outages.items():
            if cause != but:
                outage.subscriptions.discard(subscription)
        over = [c for c, outage in self._outages.items() if not outage.subscriptions]
        return [self._outages.pop(cause) for cause in over]


def _find_cause(error: BaseException) -> str:
    if isinstance(error, BrokerUnavailable):
        return "unavailable"
    return f"{type(error).__name__}: {escape(error)}"


def _describe_extent(outage: _Outage, now: float) -> str:
    if now == outage.began:
        return ""
    number = pluralize(len(outage.subscriptions), "connection")
    return f" (for {now - outage.began:.0f} s, {number} missing)"
