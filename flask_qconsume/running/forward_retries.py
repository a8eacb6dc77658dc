"""Forwards that the broker has refused, until they are tried again."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

from ..broker.link import Forward
from .delayed_items import DelayedItems


class ForwardRetries:
    """Holds forwards that the broker has refused, and retries them after a delay.

    :param retry: Called with each forward when its delay is over; must not wait.
    :param on_count: Called with the number of held forwards, whenever the number
        changes; must not wait.
    """

    def __init__(
        self, retry: Callable[[Forward], None], on_count: Callable[[int], None]
    ) -> None:
        self._retry = retry
        self._on_count = on_count
        self._delayed = DelayedItems(self._retry_all)

    def __len__(self) -> int:
        return sum(map(len, self._delayed.items))

    def add(self, forwards: Sequence[Forward], delay: float) -> None:
        """Retry ``forwards`` after ``delay`` seconds."""
        self._delayed.add(forwards, delay)
        self._on_count(len(self))

    def clear(self) -> list[Forward]:
        """Cancel all retries, and return their forwards."""
        found = [forward for forwards in self._delayed.clear() for forward in forwards]
        self._on_count(0)
        return found

    def _retry_all(self, forwards: Sequence[Forward]) -> None:
        for forward in forwards:
            self._retry(forward)
        self._on_count(len(self))
