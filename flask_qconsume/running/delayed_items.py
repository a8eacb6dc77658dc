"""Passes items on after a delay, by timers of gevent's event loop.

A sleeping greenlet could be killed or hit by a time-out; a timer cannot.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import gevent

from ..first_use import ForkGuard

T = t.TypeVar("T")


class DelayedItems(t.Generic[T]):
    """Holds items for a delay, and passes each one on when its delay is over.

    In a forked child, no item is passed on.

    :param on_due: Called with each item by gevent's event loop, so it must not wait.
    """

    def __init__(self, on_due: Callable[[T], object]) -> None:
        self._on_due = on_due
        self._items: dict[t.Any, T] = {}
        self._fork_guard = ForkGuard()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> list[T]:
        """The items whose delay is not over."""
        return list(self._items.values())

    def add(self, item: T, delay: float) -> None:
        """Pass ``item`` to ``on_due`` after ``delay`` seconds."""
        timer = gevent.get_hub().loop.timer(delay)
        self._items[timer] = item
        timer.start(self._end_delay, timer)

    def clear(self) -> list[T]:
        """Cancel all delays, and return the items instead of passing them on."""
        found = self.items
        for timer in self._items:
            timer.close()
        self._items.clear()
        return found

    def _end_delay(self, timer: t.Any) -> None:
        timer.close()
        item = self._items.pop(timer)
        if not self._fork_guard.is_forked:
            self._on_due(item)
