"""The greenlets that handle one subscription's messages.

What is put here wakes one greenlet that is free, which takes one job after the other
for as long as it need not wait; only when it does is the next one woken. So handlers
that wait run side by side, and those that do not get their jobs without a switch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable

import gevent

from ..broker.delivery import Delivery
from ..errors import Interrupted
from ..handling.dispatch import Result
from .event import Event
from .turns import Turns


class Job:
    """What one greenlet is handling."""

    __slots__ = ("delivery", "given_up", "started")

    #: Replaced when the broker delivers the same message again meanwhile.
    delivery: Delivery
    started: float

    def __init__(self) -> None:
        #: Its result is of no interest any more, and its greenlet is not wanted.
        self.given_up = False


class Handlers:
    """A fixed number of greenlets that take jobs from one queue.

    :param concurrency: How many greenlets.
    :param work: Handles a delivery; raises nothing but :class:`Interrupted`.
    :param done: Told the result of each job that was not given up.
    :param missed: Told a delivery that may not be begun any more.
    :param turns: When jobs may be begun; at any time unless given.
    """

    def __init__(
        self,
        concurrency: int,
        work: Callable[[Delivery], Result],
        done: Callable[[Delivery, Result], None],
        missed: Callable[[Delivery], None],
        turns: Turns | None = None,
    ) -> None:
        self._concurrency = concurrency
        self._work = work
        self._done = done
        self._missed = missed
        self._turns = turns
        self._inbox: deque[Delivery] = deque()
        self._free: dict[gevent.Greenlet, None] = {}
        self._waking = False
        self._ending = False
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

    def start(self) -> None:
        """Start the greenlets."""
        for _ in range(self._concurrency):
            self._add()

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
        for greenlet in self._free:
            gevent.get_hub().loop.run_callback(greenlet.switch)
        self._free.clear()

    def _give_up(self, greenlet: gevent.Greenlet) -> Delivery:
        job = self._busy[greenlet]
        job.given_up = True
        self._leave(greenlet)
        self._greenlets.discard(greenlet)
        self._left_alone.add(greenlet)
        greenlet.link(self._left_alone.discard)
        self._add()
        return job.delivery

    def _add(self) -> None:
        self._greenlets.add(gevent.spawn(self._loop))

    def _loop(self) -> None:
        this, job = gevent.getcurrent(), Job()
        try:
            while not job.given_up and (delivery := self._next(this)):
                self._handle(this, job, delivery)
        except Interrupted:
            # Thrown at a handler that had ended by the time it arrived.
            return

    def _next(self, this: gevent.Greenlet) -> Delivery | None:
        """What is to be handled next, waiting for it; ``None`` at the end."""
        over = self._turns is not None and self._turns.over
        while over or not self._inbox:
            if self._ending:
                return None
            self._wait_for_job(this)
            # Whoever is woken may begin one.
            over = False
        return self._inbox.popleft()

    def _wait_for_job(self, this: gevent.Greenlet) -> None:
        self._free[this] = None
        if self._turns is not None:
            # There may be some, and it was only the turn that was over.
            self._wake_soon()
        try:
            gevent.get_hub().switch()
        finally:
            self._free.pop(this, None)

    def _wake_soon(self) -> None:
        if not self._inbox or not self._free or self._waking:
            return
        self._waking = True
        if self._turns is None:
            gevent.get_hub().loop.run_callback(self._wake)
        else:
            self._turns.ask(self._wake)

    def _wake(self) -> None:
        """Called in the hub, which is come back to when the greenlet waits."""
        self._waking = False
        if self._inbox and self._free:
            greenlet, _ = self._free.popitem()
            greenlet.switch()
            self._wake_soon()

    def _handle(self, this: gevent.Greenlet, job: Job, delivery: Delivery) -> None:
        if not delivery.begin():
            # The broker delivers it again, and nobody has begun with it: no loss.
            self._missed(delivery)
            return
        job.delivery = delivery
        job.started = time.monotonic()
        self._busy[this] = job
        try:
            result = self._work(delivery)
            if not job.given_up:
                self._done(job.delivery, result)
        finally:
            self._leave(this)

    def _leave(self, greenlet: gevent.Greenlet) -> None:
        self._busy.pop(greenlet, None)
        if self._awaited and not self._busy:
            self._idle.set()
