"""The greenlets that handle one subscription's messages.

What is put here wakes one greenlet that is free, which takes one job after the other
for as long as it need not wait; only when it does is the next one woken. So handlers
that wait run side by side, and those that do not get their jobs without a switch.

A greenlet is used again only if nothing but this pool refers to it. A reference that a
message leaves behind may throw into the next message: a ``gevent.Timeout`` that was
never closed, or a ``kill()`` that comes late. Such a greenlet ends, and a new one takes
its place; what is thrown at it afterwards reaches nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable

import gevent

from ..broker.link import Delivery
from ..errors import Interrupted
from ..handling.result import Result
from ..logs import get_logger
from . import greenlets
from .event import Event
from .fair_share import Turns
from .greenlets import OwnGreenlet

logger = get_logger("flask_qconsume.handlers")


class Job:
    """What one greenlet is handling."""

    __slots__ = ("delivery", "given_up", "started")

    started: float

    def __init__(self) -> None:
        #: Replaced when the broker delivers the same message again meanwhile; ``None``
        #: while the greenlet is free.
        self.delivery: Delivery | None = None
        #: Its result is of no interest any more, and its greenlet is not wanted.
        self.given_up = False


class Handlers:
    """Greenlets that take jobs from one queue; they are started as they are needed.

    :param name: The consumer's, for log lines.
    :param concurrency: How many greenlets at the most.
    :param work: Handles a delivery; raises nothing but :class:`Interrupted`.
    :param done: Told the result of each job that was not given up.
    :param missed: Told a delivery that may not be begun any more.
    :param turns: When jobs may be begun; at any time unless given.
    """

    def __init__(
        self,
        name: str,
        concurrency: int,
        work: Callable[[Delivery], Result],
        done: Callable[[Delivery, Result], None],
        missed: Callable[[Delivery], None],
        turns: Turns | None = None,
    ) -> None:
        self._name = name
        self._concurrency = concurrency
        self._work = work
        self._done = done
        self._missed = missed
        self._turns = turns
        self._inbox: deque[Delivery] = deque()
        self._free: dict[gevent.Greenlet, Job] = {}
        self._waking = False
        #: The greenlet that has run since it was woken without waiting.
        self._awake: gevent.Greenlet | None = None
        #: How many references to a free greenlet are the pool's own.
        self._own_references = 0
        self._ending = False
        #: A fork copies what waits here; only the parent begins it.
        self._pid = os.getpid()
        self._busy: dict[gevent.Greenlet, Job] = {}
        self._greenlets: set[gevent.Greenlet] = set()
        self._left_alone: set[gevent.Greenlet] = set()
        self._idle = Event()
        self._awaited = False

    @property
    def busy(self) -> int:
        """How many handlers are running."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """How many deliveries wait for a handler."""
        return len(self._inbox)

    @property
    def stuck(self) -> Delivery | None:
        """What waits for a handler although one is free: it should not for long."""
        awaits_turn = self._turns is not None and self._waking
        waits = self._inbox and self._has_room and not awaits_turn
        return self._inbox[0] if waits else None

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Have deliveries handled as soon as handlers are free."""
        self._inbox.extend(deliveries)
        self._wake_soon()

    def adopt(self, delivery: Delivery) -> bool:
        """Let a running handler answer for a delivery of the message it handles.

        After a lost connection the broker gives out again what is still in hand here;
        starting it a second time would only make a duplicate.
        """
        message, identity = delivery.message, delivery.identity
        if identity is None or not message.redelivered:
            return False
        for job in self._busy.values():
            old = job.delivery
            assert old is not None  # It is busy.
            same = old.identity == identity and old.message.raw == message.raw
            if same and old.stale:
                job.delivery = delivery
                return True
        return False

    def clear(self) -> list[Delivery]:
        """Take back what no handler has started."""
        found = list(self._inbox)
        self._inbox.clear()
        return found

    def wait(self, timeout: float) -> bool:
        """Wait until no handler runs; whether that came true in time."""
        if not self._busy:
            return True
        self._idle.clear()
        self._awaited = True
        return bool(self._idle.wait(timeout))

    def interrupt(self) -> None:
        """Throw :class:`Interrupted` into all that run; their results do not count."""
        for greenlet, job in list(self._busy.items()):
            job.given_up = True
            greenlet.kill(Interrupted, block=False)

    def give_up_overdue(self, allowed: float) -> list[Delivery]:
        """Leave alone the handlers that have run for longer than ``allowed`` seconds.

        Such a one has swallowed its time limit, and cannot be ended from outside. Its
        place is taken by a new greenlet, so that the others' messages go on.
        """
        limit = time.monotonic() - allowed
        overdue = [g for g, job in self._busy.items() if job.started < limit]
        return [self._give_up(greenlet) for greenlet in overdue]

    def late(self, allowed: float) -> int:
        """How many have run for longer than that, those left alone included."""
        limit = time.monotonic() - allowed
        overdue = [job for job in self._busy.values() if job.started < limit]
        return len(overdue) + len(self._left_alone)

    def stop(self) -> None:
        """End the greenlets as they become free."""
        self._ending = True
        for greenlet, job in self._free.items():
            job.given_up = True
            gevent.get_hub().loop.run_callback(greenlet.switch)
        self._free.clear()

    def _give_up(self, greenlet: gevent.Greenlet) -> Delivery:
        job = self._busy[greenlet]
        assert job.delivery is not None
        job.given_up = True
        self._leave(greenlet)
        self._left_alone.add(greenlet)
        greenlet.link(self._left_alone.discard)
        self._discard(greenlet)
        return job.delivery

    # -- waking one that is free ------------------------------------------------------

    @property
    def _has_room(self) -> bool:
        return bool(self._free) or len(self._greenlets) < self._concurrency

    def _wake_soon(self) -> None:
        if not self._inbox or self._waking or not self._has_room:
            return
        self._waking = True
        if self._turns is None:
            gevent.get_hub().loop.run_callback(self._wake)
        else:
            self._turns.ask(self._wake)

    def _wake(self) -> None:
        """Called in the hub, which is come back to when the greenlet waits."""
        self._waking = False
        found = self._take_free() if self._inbox else None
        if found is not None:
            greenlet, job = found
            job.delivery = self._inbox.popleft()
            self._awake = greenlet
            greenlet.switch()
            self._awake = None
            self._wake_soon()

    def _take_free(self) -> tuple[gevent.Greenlet, Job] | None:
        """A greenlet that nothing else refers to; see the module's description."""
        while self._free:
            greenlet, job = self._free.popitem()
            if sys.getrefcount(greenlet) == self._own_references:
                return greenlet, job
            job.given_up = True
            greenlet.switch()
        copied = os.getpid() != self._pid
        return None if self._ending or copied or not self._has_room else self._add()

    def _add(self) -> tuple[gevent.Greenlet, Job]:
        greenlet = OwnGreenlet(self._loop)
        self._greenlets.add(greenlet)
        greenlet.switch()
        greenlet, job = self._free.popitem()
        self._own_references = sys.getrefcount(greenlet)
        return greenlet, job

    # -- in the greenlets -------------------------------------------------------------

    def _loop(self) -> None:
        this, job = gevent.getcurrent(), Job()
        try:
            while self._await_job(this, job):
                self._handle_in_a_row(this, job)
        except Interrupted:
            # Thrown at a handler that had ended by the time it arrived.
            return
        finally:
            self._discard(this)

    def _discard(self, greenlet: gevent.Greenlet) -> None:
        """Forget a greenlet, and let another one take its place."""
        self._greenlets.discard(greenlet)
        self._wake_soon()

    def _await_job(self, this: gevent.Greenlet, job: Job) -> bool:
        """Wait until there is something to do; false at the end."""
        if job.given_up or self._ending:
            return False
        job.delivery = None
        self._free[this] = job
        self._wake_soon()
        try:
            while job.delivery is None and not job.given_up:
                gevent.get_hub().switch()
        except Interrupted:
            raise
        except BaseException as error:
            self._log_stray(error)
            return False
        finally:
            self._free.pop(this, None)
        return not job.given_up

    def _log_stray(self, error: BaseException) -> None:
        logger.warning(
            "%s: %s was thrown into a greenlet that handles no message any more, and"
            " changes nothing. A handler has left a 'gevent.Timeout' running, or"
            " something keeps greenlets of handlers and calls 'kill()' too late. Start"
            " time-outs by 'with gevent.Timeout(...)', which closes them.",
            self._name,
            type(error).__name__,
        )

    def _handle_in_a_row(self, this: gevent.Greenlet, job: Job) -> None:
        """Handle one job after the other as long as this greenlet need not wait."""
        references = sys.getrefcount(this)
        self._handle(this, job)
        while self._inbox and self._may_go_on(this, job):
            if sys.getrefcount(this) != references:
                return
            job.delivery = self._inbox.popleft()
            self._handle(this, job)

    def _may_go_on(self, this: gevent.Greenlet, job: Job) -> bool:
        over = self._turns is not None and self._turns.over
        return self._awake is this and not (over or job.given_up)

    def _handle(self, this: gevent.Greenlet, job: Job) -> None:
        delivery = job.delivery
        assert delivery is not None
        if not delivery.try_start():
            # The broker delivers it again, and nobody has begun with it: no loss.
            self._missed(delivery)
            return
        job.started = time.monotonic()
        self._busy[this] = job
        try:
            result = self._work(delivery)
            if greenlets.copies and this in greenlets.copies:
                greenlets.end_child()
            if not job.given_up:
                self._done(job.delivery or delivery, result)
            if result.error is not None:
                result.release()
        finally:
            self._leave(this)

    def _leave(self, greenlet: gevent.Greenlet) -> None:
        self._busy.pop(greenlet, None)
        if self._awaited and not self._busy:
            self._idle.set()
