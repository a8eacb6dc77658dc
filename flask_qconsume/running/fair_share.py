"""When consumers may begin messages, where a web server shares their hub.

The site first: messages are begun in turns of a millisecond. A turn comes when nothing
else is ready to run (no request, no timer), or when the last one was too long ago, so
that no site starves the consumers for ever. Meanwhile a timer measures how late the hub
is, and :class:`~.pace.Pace` makes of it how long the turns are apart. That is because
of handlers that wait: what they go on with afterwards comes as soon as a request does.

Knows nothing of messages and brokers.
"""

from __future__ import annotations

import time
import typing as t
from collections import deque
from collections.abc import Callable

import gevent

from .pace import Pace

#: Seconds after which no further message is begun in the same turn.
SLICE = 0.001

#: Seconds between two measurements of the hub's latency.
INTERVAL = 0.01


class Turns:
    """Gives turns to those who ask, on the hub of the thread that makes it.

    It has neither watchers nor timers while nobody asks.

    :param pace: How long the turns are apart; after its longest pause one comes even if
        the hub is never idle.
    :param share: The part of the time that turns take at least, while somebody asks.
    """

    def __init__(self, pace: Pace, share: float) -> None:
        self.pace = pace
        self._share = share
        self._asking: deque[Callable[[], None]] = deque()
        self._awaited = False
        self._until = 0.0
        self._ended = self._since = 0.0
        loop = gevent.get_hub().loop
        self._idle = loop.idle()
        self._latest = loop.timer(pace.longest, pace.longest)
        self._pausing: t.Any = None
        self._probe = loop.timer(INTERVAL, INTERVAL, ref=False)
        self._probed = 0.0

    @property
    def over(self) -> bool:
        """Whether no message may be begun now."""
        return time.monotonic() >= self._until

    @property
    def slowed(self) -> bool:
        """Whether somebody waits for a turn, and those are as far apart as they may."""
        return self._awaited and self.pace.slowed

    def ask(self, begin: Callable[[], None]) -> None:
        """Have a function called in the hub, once, when it may begin messages."""
        self._asking.append(begin)
        if not self._awaited:
            self._await()

    def close(self) -> None:
        """Free what it has of the hub; nobody's turn comes any more."""
        self._asking.clear()
        self._stop_waiting()
        for watcher in (self._idle, self._latest, self._probe):
            watcher.close()

    def _await(self) -> None:
        self._awaited = True
        self._since = time.monotonic()
        if not self._probe.active:
            self._start_probe()
        self._latest.again(self._turn)
        left = self._ended + self.pace.pause - time.monotonic()
        if left <= 0:
            self._idle.start(self._turn)
        else:
            self._pausing = gevent.get_hub().loop.timer(left)
            self._pausing.start(self._idle.start, self._turn)

    def _stop_waiting(self) -> None:
        self._idle.stop()
        self._latest.stop()
        if self._pausing is not None:
            self._pausing.close()
            self._pausing = None

    def _turn(self) -> None:
        """Called in the hub, which is come back to when a handler waits."""
        self._stop_waiting()
        now = time.monotonic()
        self._until = now + max(SLICE, (now - self._since) * self._share)
        try:
            self._begin()
        finally:
            self._until = 0.0
            self._ended = time.monotonic()
            self._awaited = False
            if self._asking:
                self._await()

    def _begin(self) -> None:
        while self._asking:
            self._asking.popleft()()
            if self.over:
                return

    # -- how late the hub is ----------------------------------------------------------

    def _start_probe(self) -> None:
        self._probed = time.monotonic()
        self._probe.again(self._measured)

    def _measured(self) -> None:
        self._probe.stop()
        self.pace.feed(time.monotonic() - self._probed - INTERVAL)
        if self._awaited or self.pace.pause:
            self._start_probe()
