"""Reused notifiers, by which native threads wake their callers."""

from __future__ import annotations

from ....native_threads import ThreadNotifier
from ....native_threads import get_hub_id


class NotifierPool:
    """Lends notifiers to callers, which may be greenlets or threads.

    A notifier may be returned before its last notification. The next caller is then
    woken too early, and waits again. No notifier is closed before :meth:`close`, since
    a thread could be about to write to it. So the pool has as many notifiers as callers
    have waited at the same time.
    """

    def __init__(self) -> None:
        #: Idle notifiers by event loop: a socket of gevent belongs to one loop.
        self._idle: dict[int, list[ThreadNotifier]] = {}

    def borrow(self) -> ThreadNotifier:
        """Return an idle notifier of this event loop, or a new one."""
        try:
            return self._idle[get_hub_id()].pop()
        except LookupError:
            return ThreadNotifier()

    def give_back(self, notifier: ThreadNotifier) -> None:
        """Return a notifier, in the thread that borrowed it."""
        self._idle.setdefault(get_hub_id(), []).append(notifier)

    def close(self) -> None:
        """Close the idle notifiers of this event loop."""
        for notifier in self._idle.pop(get_hub_id(), ()):
            notifier.close()
