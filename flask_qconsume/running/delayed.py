"""Items that wait for a while each, by timers: those wait for nothing, and no kill or
time-out reaches them, as it does a greenlet that has not begun."""

from __future__ import annotations

import os
import typing as t
from collections.abc import Callable

import gevent

T = t.TypeVar("T")


class Delayed(t.Generic[T]):
    """Gives each item back when its time is over. A forked child gets none.

    :param give_back: Called in the hub, so it must not wait.
    """

    def __init__(self, give_back: Callable[[T], object]) -> None:
        self._give_back = give_back
        self._items: dict[t.Any, T] = {}
        self._pid = os.getpid()

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._items)

    @property
    def items(self) -> list[T]:
        """What waits."""
        return list(self._items.values())

    def add(self, item: T, delay: float) -> None:
        """Have an item wait for so many seconds."""
        timer = gevent.get_hub().loop.timer(delay)
        self._items[timer] = item
        timer.start(self._ring, timer)

    def clear(self) -> list[T]:
        """End all waits; what waited is not given back, but returned."""
        found = self.items
        for timer in self._items:
            timer.close()
        self._items.clear()
        return found

    def _ring(self, timer: t.Any) -> None:
        timer.close()
        item = self._items.pop(timer)
        if os.getpid() == self._pid:
            self._give_back(item)
