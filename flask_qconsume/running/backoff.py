"""Growing delays between attempts, with jitter.

Must not import gevent, because the supervising process uses it.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable


class Backoff:
    """Delays between attempts: each is twice as long as the last one, plus jitter.

    The delays start at ``first`` seconds, and end at ``longest``. Jitter (a random
    part) keeps workers that lost the broker at the same moment from reconnecting at the
    same moment.
    """

    def __init__(
        self,
        first: float = 1.0,
        longest: float = 30.0,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._first = first
        self._longest = longest
        self._random = random
        self._next = first

    def next(self) -> float:
        """Return the seconds to wait now: between half of the delay and all of it."""
        delay, self._next = self._next, min(self._longest, self._next * 2)
        return delay * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """Start again with the first delay."""
        self._next = self._first
