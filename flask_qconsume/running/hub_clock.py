"""Measure how late gevent's event loop is, and for how long it was blocked."""

from __future__ import annotations

import time
import typing as t

import gevent

#: Seconds between two runs of the timer.
_TICK_SECONDS = 0.5

#: A timer that is less late than this many seconds counts as in time.
MIN_BLOCKED_SECONDS = 0.1

#: If the process was halted as a whole, by SIGSTOP or with the machine, and so used no
#: processor time, at most this many seconds count as blocked.
_MAX_HALTED_SECONDS = 2.0


class _Delays(t.NamedTuple):
    """What the event loop told last; replaced as a whole, since a thread reads it."""

    #: When the timer runs next, on :func:`time.monotonic`'s clock.
    due_at: float
    #: How late it ran the last time, in seconds.
    late: float
    #: The sum of all delays of at least :data:`MIN_BLOCKED_SECONDS`.
    blocked: float


class HubClock:
    """A timer of gevent's event loop, watched by a native thread.

    It sees a blocked event loop if the timer is due meanwhile: for certain if that
    lasts for half a second.
    """

    def __init__(self) -> None:
        self._timer = gevent.get_hub().loop.timer(
            _TICK_SECONDS, _TICK_SECONDS, ref=False
        )
        self._state = _Delays(time.monotonic() + _TICK_SECONDS, 0.0, 0.0)
        self._counted = 0.0
        self._processor_time = time.process_time()

    def start(self) -> None:
        """Start the timer. Call this in the thread that runs the event loop."""
        self._tick()

    def close(self) -> None:
        """Stop the timer, and free it."""
        self._timer.close()

    def _tick(self) -> None:
        now = time.monotonic()
        late = max(0.0, now - self._state.due_at)
        blocked = self._state.blocked + _ignore_short(late)
        self._timer.again(self._tick)
        self._state = _Delays(now + _TICK_SECONDS, late, blocked)

    # -- in the native thread ---------------------------------------------------------

    @property
    def latency(self) -> float:
        """How late the timer is now, or was the last time, in seconds."""
        state = self._state
        return max(state.late, time.monotonic() - state.due_at)

    def measure_blocked(self) -> float:
        """Return for how many seconds the event loop was blocked since the last call.

        Only one thread may call this.
        """
        state, now, used = self._state, time.monotonic(), time.process_time()
        computed, self._processor_time = used - self._processor_time, used
        total = state.blocked + _ignore_short(now - state.due_at)
        blocked, self._counted = max(0.0, total - self._counted), total
        return min(blocked, max(computed, _MAX_HALTED_SECONDS))


def _ignore_short(late: float) -> float:
    return late if late >= MIN_BLOCKED_SECONDS else 0.0
