"""Whether a broker that was away is back: one looks for all who wait.

Connecting is tried again after pauses that double, so as not to hammer a broker that
accepts connections and refuses what comes by them. The end of an outage may be half a
minute away from the next attempt then. Meanwhile this looks, cheaply and once a second,
whether anything answers at all; when something does that did not before, the pauses
end, not all at the same moment.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable

import gevent

from ..logs import get_logger
from .event import Event
from .greenlets import ProtectedGreenlet

logger = get_logger("flask_qconsume.lookout")

#: Seconds that a look has to end when all else has.
_PATIENCE = 2.0


class Lookout:
    """Lets subscriptions pause, and ends their pauses when the broker is back.

    :param answers: Whether anything answers at the broker's address, now.
    :param interval: Seconds between two looks.
    :param spread: Seconds within which those who waited go on, each at its own time.
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
        self._away = False
        self._back = Event()
        self._waiting = 0
        self._looking: ProtectedGreenlet | None = None
        self._enough = Event()

    def pause(self, over: Event, timeout: float) -> bool:
        """Wait for so many seconds, or until ``over``, or until the broker is back.

        :returns: Whether the broker is back.
        """
        back = self._back
        self._begin()
        try:
            gevent.wait([over, back], timeout, count=1)
        finally:
            self._end()
        if over.is_set() or not back.is_set():
            return False
        # A broker that has just started is not met by all of us at once.
        return not over.wait(self._spread * self._random())

    def close(self) -> None:
        """End the look that is under way, if nobody waits any more."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.join(_PATIENCE)
            looking.end()

    def _begin(self) -> None:
        self._waiting += 1
        self._enough.clear()
        if self._looking is None or self._looking.dead:
            self._looking = ProtectedGreenlet.spawn(self._look_on)

    def _end(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            # Not killed: it may be connecting, and would leave an open socket behind.
            self._enough.set()

    def _look_on(self) -> None:
        while not self._enough.is_set():
            self._look()
            self._enough.wait(self._interval)

    def _look(self) -> None:
        was_away, self._away = self._away, not self._is_there()
        if was_away and not self._away:
            back, self._back = self._back, Event()
            back.set()

    def _is_there(self) -> bool:
        try:
            return self._answers()
        except Exception:
            logger.exception("Looking whether the broker is back failed.")
            return True
