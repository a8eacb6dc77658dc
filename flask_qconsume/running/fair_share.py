"""When consumers may begin messages, if a web server runs on the same hub.

Requests have priority. Consumers begin messages in turns of a millisecond. A turn comes
when the hub has nothing else to run (no request, no timer), or when the last turn was
too long ago, so that a busy site cannot starve the consumers. A timer measures how late
the hub runs, and :class:`Pace` derives the pause between two turns from that. The pause
is needed for handlers that wait: the rest of their work runs as soon as a request does.

Knows no messages and no brokers.
"""

from __future__ import annotations

import time
import typing as t
from collections import deque
from collections.abc import Callable

import gevent

#: Seconds that a turn lasts at least; after them no further message is begun in it.
TURN_SECONDS = 0.001

#: Seconds between two measurements of the hub's latency.
_PROBE_SECONDS = 0.01

#: The shortest pause in seconds; a pause that would be shorter becomes 0.
_SHORTEST_PAUSE = 0.001

#: Weight of one sample in the smoothed latency: after ten samples of a new value, the
#: smoothed one has covered nine tenths of the difference.
_SAMPLE_WEIGHT = 0.2

#: Factors by which each sample makes the pause longer or shorter.
_LONGER, _SHORTER = 1.25, 0.9


class Pace:
    """The pause between two turns, controlled by the latency of the hub.

    Does no I/O and reads no clock.

    :param target: Seconds that the hub may be late.
    :param longest: The longest pause in seconds, however late the hub is.
    """

    def __init__(self, target: float, longest: float) -> None:
        self._target = target
        #: The longest pause in seconds.
        self.longest = longest
        #: Seconds that the hub is late, smoothed.
        self.late = 0.0
        #: Seconds from the end of one turn to the next turn.
        self.pause = 0.0

    @property
    def is_slowest(self) -> bool:
        """True if the pause has reached its maximum."""
        return self.pause >= self.longest

    def feed(self, late: float) -> None:
        """Adapt the pause to one more sample of the hub's latency, in seconds."""
        self.late += (late - self.late) * _SAMPLE_WEIGHT
        if self.late > self._target:
            longer = max(self.pause * _LONGER, _SHORTEST_PAUSE)
            self.pause = min(longer, self.longest)
        else:
            shorter = self.pause * _SHORTER
            self.pause = shorter if shorter >= _SHORTEST_PAUSE else 0.0


class FairShare:
    """Turns for the callers that request them, on the hub of the current thread.

    Neither watchers nor timers are active while no turn is requested.

    :param pace: The pause between two turns. After its longest pause a turn comes even
        if the hub is never idle.
    :param share: The least part of the time that turns take while one is requested.
    """

    def __init__(self, pace: Pace, share: float) -> None:
        self.pace = pace
        self._share = share
        self._requests: deque[Callable[[], None]] = deque()
        self._is_waiting = False
        self._turn_until = 0.0
        self._turn_ended = self._waiting_since = 0.0
        loop = gevent.get_hub().loop
        self._hub_is_idle = loop.idle()
        self._latest = loop.timer(pace.longest, pace.longest)
        self._pausing: t.Any = None
        self._probe = loop.timer(_PROBE_SECONDS, _PROBE_SECONDS, ref=False)
        self._probed_at = 0.0

    @property
    def turn_is_over(self) -> bool:
        """True if no message may be begun now."""
        return time.monotonic() >= self._turn_until

    @property
    def is_slowed(self) -> bool:
        """True if a turn is requested while pauses have their maximum."""
        return self._is_waiting and self.pace.is_slowest

    def request_turn(self, begin: Callable[[], None]) -> None:
        """Have a function called in the hub, once, when it may begin messages."""
        self._requests.append(begin)
        if not self._is_waiting:
            self._await_turn()

    def close(self) -> None:
        """Free the watchers and timers. Requested turns do not come any more."""
        self._requests.clear()
        self._stop_waiting()
        for watcher in (self._hub_is_idle, self._latest, self._probe):
            watcher.close()

    def _await_turn(self) -> None:
        self._is_waiting = True
        self._waiting_since = time.monotonic()
        if not self._probe.active:
            self._start_probe()
        self._latest.again(self._run_turn)
        left = self._turn_ended + self.pace.pause - time.monotonic()
        if left <= 0:
            self._hub_is_idle.start(self._run_turn)
        else:
            self._pausing = gevent.get_hub().loop.timer(left)
            self._pausing.start(self._hub_is_idle.start, self._run_turn)

    def _stop_waiting(self) -> None:
        self._hub_is_idle.stop()
        self._latest.stop()
        if self._pausing is not None:
            self._pausing.close()
            self._pausing = None

    def _run_turn(self) -> None:
        """Run in the hub, which regains control whenever a handler waits."""
        self._stop_waiting()
        now = time.monotonic()
        waited = now - self._waiting_since
        self._turn_until = now + max(TURN_SECONDS, waited * self._share)
        try:
            self._serve_requests()
        finally:
            self._turn_until = 0.0
            self._turn_ended = time.monotonic()
            self._is_waiting = False
            if self._requests:
                self._await_turn()

    def _serve_requests(self) -> None:
        while self._requests:
            self._requests.popleft()()
            if self.turn_is_over:
                return

    # -- latency of the hub -----------------------------------------------------------

    def _start_probe(self) -> None:
        self._probed_at = time.monotonic()
        self._probe.again(self._end_probe)

    def _end_probe(self) -> None:
        self._probe.stop()
        self.pace.feed(time.monotonic() - self._probed_at - _PROBE_SECONDS)
        if self._is_waiting or self.pace.pause:
            self._start_probe()
