"""The greenlets that handle the messages of one subscription.

A new message wakes one free greenlet. It handles one message after the other until a
handler waits, for example for a database; then the next free greenlet is woken. So
handlers that wait run concurrently, and handlers that never wait run without switches
between greenlets.

A greenlet is used again only if no code outside of this pool refers to it. A message
may leave references behind that raise in the next message: a ``gevent.Timeout`` that
was never closed, or a late ``kill()``. A greenlet with such references ends, and a new
one takes its place, so that a late exception reaches no message.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable

import gevent

from ..broker.link import Delivery
from ..errors import Interrupted
from ..first_use import ForkGuard
from ..handling.result import Result
from ..logs import get_logger
from . import greenlets
from .fair_share import FairShare
from .greenlets import OwnGreenlet
from .running_jobs import Abandoned
from .running_jobs import Job
from .running_jobs import RunningJobs

logger = get_logger("flask_qconsume.handlers")


class Handlers:
    """A pool of greenlets, which handle the messages of one subscription.

    :param name: The subscription's name, for log lines.
    :param concurrency: The largest number of greenlets.
    :param handle: Handles a delivery; raises nothing but :class:`Interrupted`.
    :param on_done: Called with each delivery, its result and when its handling began
        (on :func:`time.monotonic`'s clock), unless the handler was interrupted or
        abandoned.
    :param on_missed: Called with each delivery that must not be handled here any more.
    :param fair_share: Decides when messages may be begun if the process also serves web
        requests; by default, at any time.
    """

    def __init__(
        self,
        name: str,
        concurrency: int,
        handle: Callable[[Delivery], Result],
        on_done: Callable[[Delivery, Result, float], None],
        on_missed: Callable[[Delivery], None],
        fair_share: FairShare | None = None,
    ) -> None:
        self.running = RunningJobs()
        self._name = name
        self._concurrency = concurrency
        self._handle = handle
        self._on_done = on_done
        self._on_missed = on_missed
        self._fair_share = fair_share
        self._inbox: deque[Delivery] = deque()
        self._free: dict[gevent.Greenlet, Job] = {}
        #: True while a call of :meth:`_wake` is scheduled.
        self._waking = False
        #: The greenlet that was woken last, until it waits for the first time.
        self._awake: gevent.Greenlet | None = None
        #: How many references to a free greenlet the pool itself has.
        self._own_references = 0
        self._ending = False
        #: A fork copies the inbox; only the parent may begin its messages.
        self._fork_guard = ForkGuard()
        self._jobs = self.running.jobs
        self._greenlets: set[gevent.Greenlet] = set()

    @property
    def busy(self) -> int:
        """Number of handlers that are running."""
        return len(self._jobs)

    @property
    def waiting(self) -> int:
        """Number of deliveries that wait for a handler."""
        return len(self._inbox)

    @property
    def stuck(self) -> Delivery | None:
        """A delivery that waits although a handler is free; ``None`` if there is none.

        This is normal for a moment only; if it lasts, the pool has a fault.
        """
        awaits_turn = self._fair_share is not None and self._waking
        waits = self._inbox and self._has_room and not awaits_turn
        return self._inbox[0] if waits else None

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Add deliveries to the queue from which free handlers take them."""
        self._inbox.extend(deliveries)
        self._wake_soon()

    def clear(self) -> list[Delivery]:
        """Remove and return the deliveries that no handler has started."""
        found = list(self._inbox)
        self._inbox.clear()
        return found

    def give_up_overdue(self, allowed: float) -> list[Abandoned]:
        """Abandon handlers that have run for more than ``allowed`` seconds.

        Such a handler has caught and ignored the exception of its time limit. A new
        greenlet takes its place, so that other messages are handled.
        """
        overdue = self.running.find_overdue(allowed)
        abandoned = [self.running.abandon(greenlet) for greenlet in overdue]
        for greenlet in overdue:
            self._discard(greenlet)
        return abandoned

    def stop(self) -> None:
        """End all greenlets: free ones now, busy ones after their message."""
        self._ending = True
        for greenlet, job in self._free.items():
            job.given_up = True
            gevent.get_hub().loop.run_callback(greenlet.switch)
        self._free.clear()

    # -- in the event loop: waking a free greenlet ------------------------------------

    @property
    def _has_room(self) -> bool:
        return bool(self._free) or len(self._greenlets) < self._concurrency

    def _wake_soon(self) -> None:
        if not self._inbox or self._waking or not self._has_room:
            return
        self._waking = True
        if self._fair_share is None:
            gevent.get_hub().loop.run_callback(self._wake)
        else:
            self._fair_share.request_turn(self._wake)

    def _wake(self) -> None:
        """Let a free greenlet run, until its handler waits or no message is left."""
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
        """Return a free greenlet, or a new one; ``None`` if all are busy.

        Greenlets to which code outside of the pool refers (by Python's count of
        references) are ended: that code could throw into the next message's handler.
        """
        while self._free:
            greenlet, job = self._free.popitem()
            if sys.getrefcount(greenlet) == self._own_references:
                return greenlet, job
            job.given_up = True
            greenlet.switch()
        copied = self._fork_guard.is_forked
        return None if self._ending or copied or not self._has_room else self._add()

    def _add(self) -> tuple[gevent.Greenlet, Job]:
        greenlet = OwnGreenlet(self._run)
        self._greenlets.add(greenlet)
        greenlet.switch()
        greenlet, job = self._free.popitem()
        # Counted now, since no other code can have seen the greenlet yet.
        self._own_references = sys.getrefcount(greenlet)
        return greenlet, job

    # -- in the greenlets -------------------------------------------------------------

    def _run(self) -> None:
        this, job = gevent.getcurrent(), Job()
        try:
            while self._wait_for_work(this, job):
                self._handle_in_a_row(this, job)
        except Interrupted:
            # Thrown at a handler that ended before the exception arrived.
            return
        finally:
            self._discard(this)

    def _discard(self, greenlet: gevent.Greenlet) -> None:
        self._greenlets.discard(greenlet)
        self._wake_soon()

    def _wait_for_work(self, this: gevent.Greenlet, job: Job) -> bool:
        """Wait until a delivery is queued; return false to end the greenlet."""
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
        references = sys.getrefcount(this)
        self._handle_one(this, job)
        while self._inbox and self._may_go_on(this, job):
            if sys.getrefcount(this) != references:
                return  # The last message has left a reference to this greenlet.
            job.delivery = self._inbox.popleft()
            self._handle_one(this, job)

    def _may_go_on(self, this: gevent.Greenlet, job: Job) -> bool:
        over = self._fair_share is not None and self._fair_share.turn_is_over
        return self._awake is this and not (over or job.given_up)

    def _handle_one(self, this: gevent.Greenlet, job: Job) -> None:
        delivery = job.delivery
        assert delivery is not None
        if not delivery.try_start():
            # Nothing is lost: the message was not begun, and the broker redelivers it.
            self._on_missed(delivery)
            return
        job.started = time.monotonic()
        self._jobs[this] = job
        try:
            result = self._handle(delivery)
            if greenlets.copies and this in greenlets.copies:
                greenlets.end_child()
            if not job.given_up:
                self._on_done(job.delivery or delivery, result, job.started)
            if result.error is not None:
                result.release()
        finally:
            self.running.remove(this)
