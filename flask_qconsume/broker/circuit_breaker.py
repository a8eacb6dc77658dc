"""Whether to publish at all: who waits for a broker that is away waits in vain.

A circuit is closed as long as the broker answers somebody. Once nobody has got an
answer for a while it is open: publishing fails at once, but for one attempt at a time,
and the first answer closes it. It is for what users publish. What is forwarded
(retries, dead letters) has a backoff of its own, and does not come by here.

Safe in any thread or greenlet, and after a fork. Knows no kind of broker.
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

#: Seconds between two attempts while it is open, in the mean; jitter spreads processes.
_PAUSE = 1.0

#: What says that the broker did not answer. Whatever else it says is an answer.
_SILENT = (BrokerUnavailable, PublishTimeout)

Results = list[Exception | None]


class CircuitBreaker:
    """Lets publishes through as long as the broker answers.

    :param away_after: Seconds without any answer after which it opens.
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
        """As the broker's own ``publish``.

        :raises BrokerAway: at once, while the circuit is open.
        """
        if not messages:
            return []
        state = self._states.get()
        probes = self._let_through(state, broker, len(messages))
        silent: Exception | None = None
        answered = False
        try:
            errors = broker.publish(messages, timeout)
            silent = _silent(errors)
            answered = silent is None
            return errors
        except _SILENT as error:
            silent = error
            raise
        finally:
            # Whoever was interrupted, or asked for what cannot be, has learnt nothing.
            news = state.left(len(messages), probes, answered, silent)
            if news is not None:
                _tell(news, broker.capabilities.broker, silent)

    def _let_through(self, state: _State, broker: Broker, count: int) -> bool:
        """Whether it is the attempt that is made while the circuit is open."""
        admission = state.enter(count)
        if admission is _LET_THROUGH:
            return False
        name = broker.capabilities.broker
        if admission.news is not None:
            _tell(admission.news, name, state.silent)
        if admission.away is not None:
            raise _away(name, state.silent, *admission.away)
        return admission.probes


class _News(t.NamedTuple):
    """The circuit opened or closed."""

    opened: bool
    #: Seconds for which the broker has not answered, or had not.
    silence: float


class _Admission(t.NamedTuple):
    probes: bool = False
    #: Seconds of silence, and seconds until the next attempt, if it is refused.
    away: tuple[float, float] | None = None
    news: _News | None = None


class _State:
    """What the publishers of one process have met with."""

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
        #: Since when there has been no answer, though somebody waits or has failed.
        self._since: float | None = None
        self._waiting = 0
        #: How many of them send more than one message: others wait for these.
        self._batches = 0
        #: How the last one failed since then.
        self.silent: Exception | None = None
        #: When the next attempt may begin; ``None`` as long as the circuit is closed.
        self._next: float | None = None
        self._probing = False

    def enter(self, count: int) -> _Admission:
        """Somebody wants to publish so many messages."""
        with self._lock:
            if self._since is None and self._next is None:
                self._since = self._clock()
                self._count(count)
                return _LET_THROUGH
            return self._enter(count, self._clock())

    def _enter(self, count: int, now: float) -> _Admission:
        news = None
        if self._next is None:
            if not self._is_away(now):
                self._count(count)
                return _LET_THROUGH
            # Where nobody waits, whoever comes now is the one to try.
            news = self._open(now, 0.0 if not self._waiting else self._pause())
        assert self._next is not None
        if self._probing or now < self._next:
            left = 0.0 if self._probing else self._next - now
            return _Admission(away=(self._silence(now), left), news=news)
        self._probing = True
        self._count(count)
        return _Admission(probes=True, news=news)

    def left(
        self, count: int, probed: bool, answered: bool, silent: Exception | None
    ) -> _News | None:
        """Somebody who was let through is done.

        :param probed: Whether it was the one attempt.
        :param answered: Whether the broker has answered.
        :param silent: What said that it has not.
        """
        with self._lock:
            now = self._clock()
            self._count(count, -1)
            if probed:
                self._probing, self._next = False, now + self._pause()
            if answered:
                return self._close(now)
            if silent is not None:
                self.silent = silent
                if self._next is None and self._is_away(now):
                    return self._open(now, self._pause())
            elif not self._waiting and self.silent is None and self._next is None:
                self._since = None
            return None

    def _count(self, count: int, one: int = 1) -> None:
        self._waiting += one
        if count > 1:
            self._batches += one

    def _is_away(self, now: float) -> bool:
        """Whether nothing was answered for long, and not only since a batch is long."""
        waited_for = self._waiting and not self._batches
        long = self._silence(now) >= self._away_after
        return long and bool(waited_for or self.silent)

    def _silence(self, now: float) -> float:
        return 0.0 if self._since is None else now - self._since

    def _pause(self) -> float:
        return _PAUSE * (0.5 + self._random())

    def _open(self, now: float, pause: float) -> _News:
        self._next = now + pause
        return _News(True, self._silence(now))

    def _close(self, now: float) -> _News | None:
        was_open, silence = self._next is not None, self._silence(now)
        self._next = self.silent = None
        self._since = now if self._waiting else None
        return _News(False, silence) if was_open else None


_LET_THROUGH = _Admission()


def _silent(errors: Results) -> Exception | None:
    """What says that the broker answered for none of them, if so."""
    if errors[0] is None:
        return None
    if all(isinstance(error, _SILENT) for error in errors):
        return errors[0]
    return None


def _away(
    name: str, last: Exception | None, silence: float, pause: float
) -> BrokerAway:
    when = f"in {pause:.1f} s" if pause > 0 else "just now, by somebody else"
    said = f" The last error: {escape(last)}" if last is not None else ""
    return BrokerAway(
        f"Nothing was sent: {name} has confirmed nothing for {silence:.0f} s, so nobody"
        f" waits for it any more ('QCONSUME_AWAY_AFTER'). It is tried again {when}."
        f"{said}",
        max(1, math.ceil(pause)),
    )


def _tell(news: _News, name: str, last: Exception | None) -> None:
    if not news.opened:
        logger.warning("%s answers again after %.0f s", name, news.silence)
        return
    logger.error(
        "%s has confirmed nothing for %.0f s: publishing fails at once from now on, but"
        " for one attempt at a time, until it answers: %s",
        name,
        news.silence,
        escape(last) if last is not None else "who publishes still waits",
    )
