"""Circuit breaker of publishing: during an outage, publishing fails at once.

The circuit is closed as long as the broker answers any caller. After some seconds
without an answer it opens: all calls fail at once, except one attempt at a time, and
the first answer closes the circuit. Only messages published by user code pass through
it: forwarding (retries, dead letters) has a backoff of its own.

Safe in any thread or greenlet, and after a fork.
"""

from __future__ import annotations

import math
import random as _random
import threading
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ..errors import BrokerAway
from ..errors import BrokerUnavailable
from ..errors import PublishTimeout
from ..first_use import PerProcess
from ..logs import get_logger
from ..message import Outgoing
from ..text import escape
from .base import Broker

logger = get_logger("flask_qconsume.circuit")

#: Mean seconds between two attempts while the circuit is open; a random factor spreads
#: the attempts of several processes.
_RETRY_INTERVAL_SECONDS = 1.0

#: Errors that mean that the broker did not answer. Any other error is an answer.
_NO_ANSWER = (BrokerUnavailable, PublishTimeout)

Results = list[Exception | None]


class CircuitBreaker:
    """Lets callers publish while the broker answers; else makes them fail at once.

    :param away_after: Seconds without any answer after which the circuit opens.
    """

    def __init__(
        self,
        away_after: float,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._states = PerProcess(lambda: _State(away_after, clock, random))

    def publish(
        self, broker: Broker, messages: Sequence[Outgoing], timeout: float
    ) -> Results:
        """Publish by :meth:`.Broker.publish`, unless the circuit is open.

        :raises BrokerAway: at once, while the circuit is open.
        """
        if not messages:
            return []
        state = self._states.get()
        is_probe = self._admit(state, broker, len(messages))
        failure: Exception | None = None
        answered = False
        try:
            errors = broker.publish(messages, timeout)
            failure = _find_failure(errors)
            answered = failure is None
            return errors
        except _NO_ANSWER as error:
            failure = error
            raise
        finally:
            # After an interrupt, or an unsupported option, both remain unset.
            change = state.leave(len(messages), is_probe, answered, failure)
            if change is not None:
                _log_change(change, broker.capabilities.broker, failure)

    def _admit(self, state: _State, broker: Broker, count: int) -> bool:
        """Let a caller publish, or raise; return true if its call is the test call."""
        admission = state.enter(count)
        if admission is _ADMITTED:
            return False
        name = broker.capabilities.broker
        if admission.change is not None:
            _log_change(admission.change, name, state.last_failure)
        if admission.refusal is not None:
            raise _create_error(name, state.last_failure, *admission.refusal)
        return admission.is_probe


class _Change(t.NamedTuple):
    """The change of the circuit that a call has caused: it was opened, or closed."""

    opened: bool
    #: Seconds without an answer before the change.
    seconds: float


class _Admission(t.NamedTuple):
    is_probe: bool = False
    #: If refused: seconds without an answer, and seconds until the next attempt.
    refusal: tuple[float, float] | None = None
    change: _Change | None = None


class _State:
    """The circuit of one process: open or closed, and the time of the last answer."""

    def __init__(
        self,
        away_after: float,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._away_after = away_after
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        #: Time of the last answer, or of the first call since; ``None`` while no caller
        #: waits and the last call did not fail.
        self._since: float | None = None
        #: Callers that are publishing.
        self._waiting = 0
        #: Of these, callers with more than one message, which may rightly take long.
        self._batches = 0
        #: The last failure since the last answer.
        self.last_failure: Exception | None = None
        #: Time of the next attempt; ``None`` as long as the circuit is closed.
        self._next_attempt: float | None = None
        self._is_probing = False

    def enter(self, count: int) -> _Admission:
        """Let a caller publish ``count`` messages, or refuse if the circuit is open."""
        with self._lock:
            if self._since is None and self._next_attempt is None:
                self._since = self._clock()
                self._count(count)
                return _ADMITTED
            return self._enter(count, self._clock())

    def _enter(self, count: int, now: float) -> _Admission:
        change = None
        if self._next_attempt is None:
            if not self._is_away(now):
                self._count(count)
                return _ADMITTED
            # If no other caller waits, this caller makes the next attempt at once.
            change = self._open(now, 0.0 if not self._waiting else self._pause())
        assert self._next_attempt is not None
        if self._is_probing or now < self._next_attempt:
            seconds_left = 0.0 if self._is_probing else self._next_attempt - now
            return _Admission(
                refusal=(self._unanswered(now), seconds_left), change=change
            )
        self._is_probing = True
        self._count(count)
        return _Admission(is_probe=True, change=change)

    def leave(
        self, count: int, is_probe: bool, answered: bool, failure: Exception | None
    ) -> _Change | None:
        """Record the result of a caller that was allowed to publish.

        :param is_probe: True if the call tested an open circuit.
        :param answered: Whether the broker has answered.
        :param failure: The error that shows that the broker did not answer.
        """
        with self._lock:
            now = self._clock()
            self._count(count, -1)
            if is_probe:
                self._is_probing, self._next_attempt = False, now + self._pause()
            if answered:
                return self._close(now)
            is_closed = self._next_attempt is None
            if failure is not None:
                self.last_failure = failure
                if is_closed and self._is_away(now):
                    return self._open(now, self._pause())
            elif not self._waiting and self.last_failure is None and is_closed:
                self._since = None
            return None

    def _count(self, count: int, by: int = 1) -> None:
        self._waiting += by
        if count > 1:
            self._batches += by

    def _is_away(self, now: float) -> bool:
        """Return whether the broker has been silent for too long.

        While a large batch waits for its confirmation, only a failed call is a sign.
        """
        single_waits = self._waiting and not self._batches
        is_long = self._unanswered(now) >= self._away_after
        return is_long and bool(single_waits or self.last_failure)

    def _unanswered(self, now: float) -> float:
        """Return the seconds since the broker's last answer."""
        return 0.0 if self._since is None else now - self._since

    def _pause(self) -> float:
        return _RETRY_INTERVAL_SECONDS * (0.5 + self._random())

    def _open(self, now: float, pause: float) -> _Change:
        self._next_attempt = now + pause
        return _Change(True, self._unanswered(now))

    def _close(self, now: float) -> _Change | None:
        was_open, seconds = self._next_attempt is not None, self._unanswered(now)
        self._next_attempt = self.last_failure = None
        self._since = now if self._waiting else None
        return _Change(False, seconds) if was_open else None


_ADMITTED = _Admission()


def _find_failure(errors: Results) -> Exception | None:
    """Return the first error, or ``None`` if the broker has answered any message."""
    if errors[0] is None:
        return None
    if all(isinstance(error, _NO_ANSWER) for error in errors):
        return errors[0]
    return None


def _create_error(
    name: str, last: Exception | None, seconds: float, pause: float
) -> BrokerAway:
    when = f"in {pause:.1f} s" if pause > 0 else "just now, by another caller"
    last_error = f" The last error: {escape(last)}" if last is not None else ""
    return BrokerAway(
        f"Nothing was sent: {name} has confirmed nothing for {seconds:.0f} s, so"
        f" publishing fails at once ('QCONSUME_AWAY_AFTER'). It is tried again {when}."
        f"{last_error}",
        max(1, math.ceil(pause)),
    )


def _log_change(change: _Change, name: str, last: Exception | None) -> None:
    if not change.opened:
        logger.warning("%s answers again after %.0f s", name, change.seconds)
        return
    logger.error(
        "%s has confirmed nothing for %.0f s: publishing fails at once until it"
        " answers, except one attempt at a time: %s",
        name,
        change.seconds,
        escape(last) if last is not None else "the publishing callers still wait",
    )
