"""Forwards that the broker refused, until they are tried again."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

from ..broker.delivery import Forward
from .greenlets import ProtectedGreenlet


class PutOff:
    """Holds forwards for a while each.

    :param again: Given each forward when its time is over.
    :param changed: Told how many there are, whenever that has changed.
    """

    def __init__(
        self, again: Callable[[Forward], None], changed: Callable[[int], None]
    ) -> None:
        self._again = again
        self._changed = changed
        self._held: dict[ProtectedGreenlet, Sequence[Forward]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def add(self, forwards: Sequence[Forward], delay: float) -> None:
        """Hold some, for so many seconds."""
        later = ProtectedGreenlet(self._give_back, forwards)
        self._held[later] = forwards
        later.link(self._discard)
        later.start_later(delay)
        self._changed(len(self))

    def clear(self) -> list[Forward]:
        """End holding what there is, and return it."""
        found = [forward for forwards in self._held.values() for forward in forwards]
        for later in list(self._held):
            later.end(block=False)
        self._held.clear()
        return found

    def _give_back(self, forwards: Sequence[Forward]) -> None:
        for forward in forwards:
            self._again(forward)

    def _discard(self, later: ProtectedGreenlet) -> None:
        self._held.pop(later, None)
        self._changed(len(self))
