"""Leases that nobody renews, by our own clock. No I/O.

Redis tells by its wall clock when a lease is over. Set back by an hour, that clock lets
the leases of dead workers go on for an hour. Those of live ones are renewed all along,
so what stays as it was, for longer than anybody waits to renew, is nobody's.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Callable
from collections.abc import Iterable

from ...broker.link import Link

#: Every worker renews its leases at least this often, however long they are.
_RENEWED = Link.keep_alive_interval

K = t.TypeVar("K", bound=t.Hashable)


class Unmoved(t.Generic[K]):
    """Tells which of some leases were seen unchanged for too long.

    :param lease: Seconds that a lease lasts.
    """

    def __init__(
        self, lease: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience = max(lease, 3 * _RENEWED)
        self._clock = clock
        self._since: dict[K, float] = {}

    def over(self, seen: Iterable[K]) -> list[K]:
        """Those that were seen at every look for long enough.

        :param seen: All that are suspicious now, each with what a renewal changes.
        """
        now = self._clock()
        self._since = {each: self._since.get(each, now) for each in seen}
        return [k for k, since in self._since.items() if now - since >= self._patience]
