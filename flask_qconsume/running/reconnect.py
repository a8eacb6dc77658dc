"""Pauses before a subscription reconnects, cut short when the broker is back.

The pauses double after each failure, so that a broker which accepts connections and
then refuses to serve them is not flooded. The broker may then be back half a minute
before the next attempt. So during pauses a cheap probe checks once a second if the
broker's port answers. Once it does, all pauses end, each at a random moment.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable

import gevent

from ..logs import get_logger
from .event import Event
from .greenlets import ProtectedGreenlet

logger = get_logger("flask_qconsume.reconnect")

#: Seconds that a running probe gets to end when the worker stops.
_JOIN_SECONDS = 2.0


class BrokerProbe:
    """Pauses between attempts to connect, which end early when the broker is back.

    :param answers: Returns whether the broker's address answers now.
    :param interval: Seconds between two calls of ``answers``.
    :param spread: When the broker is back, each pause lasts for another random time of
        up to ``spread`` seconds.
    """

    def __init__(
        self,
        answers: Callable[[], bool],
        interval: float = 1.0,
        spread: float = 1.0,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._answers = answers
        self._interval = interval
        self._spread = spread
        self._random = random
        self._is_away = False
        self._back = Event()
        self._pauses = 0
        self._probing: ProtectedGreenlet | None = None
        self._none_pauses = Event()

    def pause(self, over: Event, timeout: float) -> bool:
        """Wait for ``timeout`` seconds, or until the broker is back.

        :returns: True if the broker is back and ``over`` is not set.
        """
        back = self._back
        self._begin()
        try:
            gevent.wait([over, back], timeout, count=1)
        finally:
            self._end()
        if over.is_set() or not back.is_set():
            return False
        # Subscriptions should not all connect at once to a broker that has just
        # started.
        return not over.wait(self._spread * self._random())

    def close(self) -> None:
        """Stop the running probe. Call this when no subscription pauses any more."""
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.join(_JOIN_SECONDS)
            probing.end()

    def _begin(self) -> None:
        self._pauses += 1
        self._none_pauses.clear()
        if self._probing is None or self._probing.dead:
            self._probing = ProtectedGreenlet.spawn(self._run)

    def _end(self) -> None:
        self._pauses -= 1
        if not self._pauses:
            # Not killed: a probe that is connecting would leave an open socket behind.
            self._none_pauses.set()

    def _run(self) -> None:
        while not self._none_pauses.is_set():
            self._probe()
            self._none_pauses.wait(self._interval)

    def _probe(self) -> None:
        was_away, self._is_away = self._is_away, not self._is_reachable()
        if was_away and not self._is_away:
            back, self._back = self._back, Event()
            back.set()

    def _is_reachable(self) -> bool:
        try:
            return self._answers()
        except Exception:
            logger.exception("Probing whether the broker is back failed.")
            return True
