"""Shares a process's time between web requests and messages, requests first.

Consumers may begin messages only in *turns*, periods of at least a millisecond. A turn
comes when gevent's event loop has nothing else to run (no request, no timer), or when
the last turn was too long ago, so that a busy site cannot starve the consumers. A timer
measures how late the event loop runs, and :class:`Pace` derives the pause between two
turns from that. Handlers that wait for I/O make the pause necessary: once begun, they
compete with requests on equal terms.

Knows no messages and no brokers.
"""

from __future__ import annotations

import time
import typing as t
from collections import deque
from collections.abc import Callable

import gevent

#: The shortest length of a turn, in seconds. After a turn no message is begun.
TURN_SECONDS = 0.001

#: Seconds between two measurements of the event loop's latency.
_PROBE_SECONDS = 0.01

#: The shortest pause in seconds; a pause that would be shorter becomes 0.
_SHORTEST_PAUSE = 0.001

#: Weight of one sample in the smoothed latency: after ten samples of a new value, the
#: smoothed one has covered nine tenths of the difference.
_SAMPLE_WEIGHT = 0.2

#: Factors by which each sample lengthens or shortens the pause.
_LONGER, _SHORTER = 1.25, 0.9


class Pace:
    """Computes the pause between two turns from the latency of the event loop.

    A turn is a period in which messages may be begun. Does no I/O and reads no clock.

    :param target: The latency, in seconds, above which the pause grows.
    :param longest: The longest pause in seconds, whatever the latency is.
    """

    def __init__(self, target: float, longest: float) -> None:
        self._target = target
        #: The longest pause in seconds.
        self.longest = longest
        #: The event loop's latency in seconds, smoothed.
        self.late = 0.0
        #: Seconds from the end of one turn to the next turn.
        self.pause = 0.0

    @property
    def is_slowest(self) -> bool:
        """True if the pause is as long as it may be."""
        return self.pause >= self.longest

    def feed(self, late: float) -> None:
        """Make the pause longer or shorter, by a new measurement of the latency."""
        self.late += (late - self.late) * _SAMPLE_WEIGHT
        if self.late > self._target:
            longer = max(self.pause * _LONGER, _SHORTEST_PAUSE)
            self.pause = min(longer, self.longest)
        else:
            shorter = self.pause * _SHORTER
            self.pause = shorter if shorter >= _SHORTEST_PAUSE else 0.0


class FairShare:
    """Decides when handlers may start, so that web requests in this process go first.

    :param pace: Computes the pause between two *turns*, in which messages are begun.
        After the longest pause, a turn comes even if the event loop is never idle.
    :param share: The smallest part of the time that turns get, from 0 to 1, while
        messages wait to be begun.
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
        """True if no turn is running, so that no handler may start now."""
        return time.monotonic() >= self._turn_until

    @property
    def is_slowed(self) -> bool:
        """True if messages wait for a turn, and turns are as rare as they may be."""
        return self._is_waiting and self.pace.is_slowest

    def request_turn(self, begin: Callable[[], None]) -> None:
        """Call ``begin`` once in the next turn, to start handlers."""
        self._requests.append(begin)
        if not self._is_waiting:
            self._await_turn()

    def close(self) -> None:
        """Cancel all scheduled calls, and free the timers."""
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

    # -- latency of the event loop ----------------------------------------------------

    def _start_probe(self) -> None:
        self._probed_at = time.monotonic()
        self._probe.again(self._end_probe)

    def _end_probe(self) -> None:
        self._probe.stop()
        self.pace.feed(time.monotonic() - self._probed_at - _PROBE_SECONDS)
        if self._is_waiting or self.pace.pause:
            self._start_probe()
