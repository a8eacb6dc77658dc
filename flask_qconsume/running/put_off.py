"""Forwards that the broker refused, until they are tried again."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

from ..broker.link import Forward
from .delayed import Delayed


class PutOff:
    """Holds forwards for a while each.

    :param again: Given each forward when its time is over; must not wait.
    :param changed: Told how many there are, whenever that has changed; must not wait.
    """

    def __init__(
        self, again: Callable[[Forward], None], changed: Callable[[int], None]
    ) -> None:
        self._again = again
        self._changed = changed
        self._delayed = Delayed(self._give_back)

    def __len__(self) -> int:
        return sum(map(len, self._delayed.items))

    def add(self, forwards: Sequence[Forward], delay: float) -> None:
        """Hold some, for so many seconds."""
        self._delayed.add(forwards, delay)
        self._changed(len(self))

    def clear(self) -> list[Forward]:
        """End holding what there is, and return it."""
        found = [forward for forwards in self._delayed.clear() for forward in forwards]
        self._changed(0)
        return found

    def _give_back(self, forwards: Sequence[Forward]) -> None:
        for forward in forwards:
            self._again(forward)
        self._changed(len(self))
