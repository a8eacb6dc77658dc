"""The messages that the handlers of one subscription are working on."""

from __future__ import annotations

import time
import typing as t

import gevent

from ..broker.link import Delivery
from ..errors import Interrupted
from ..handling.context import Handling
from ..handling.context import current
from .event import Event


class Job:
    """The delivery that a greenlet is handling, and the time when it began."""

    __slots__ = ("delivery", "given_up", "started")

    #: When handling began, on :func:`time.monotonic`'s clock.
    started: float

    def __init__(self) -> None:
        #: Replaced if the broker redelivers the same message meanwhile; ``None`` while
        #: the greenlet is free.
        self.delivery: Delivery | None = None
        #: True if the handler's result is to be ignored; the greenlet ends afterwards.
        self.given_up = False


class Abandoned(t.NamedTuple):
    """A message whose handler ignored its time limit."""

    delivery: Delivery
    #: When the handling began, on :func:`time.monotonic`'s clock.
    began: float
    #: ``None`` if its greenlet hangs before the message is begun, or after its outcome
    #: is logged.
    handling: Handling | None


class RunningJobs:
    """The jobs of one subscription, by the greenlets that run them."""

    def __init__(self) -> None:
        #: By greenlet; entered and removed by :class:`~.handlers.Handlers`.
        self.jobs: dict[gevent.Greenlet, Job] = {}
        #: Greenlets that ignored their time limit and still run.
        self._abandoned: set[gevent.Greenlet] = set()
        self._none_runs = Event()
        self._is_awaited = False

    def remove(self, greenlet: gevent.Greenlet) -> None:
        """Remove the job of a greenlet that has finished."""
        self.jobs.pop(greenlet, None)
        if self._is_awaited and not self.jobs:
            self._none_runs.set()

    def adopt(self, delivery: Delivery) -> bool:
        """Give a running job the new delivery of its message, if there is such a job.

        After a lost connection the broker redelivers messages that are still being
        handled here. Starting a second handler would make a duplicate, so the running
        handler's stale delivery is replaced by the new one.

        :returns: True if a handler is working on the message.
        """
        message, identity = delivery.message, delivery.identity
        if identity is None or not delivery.may_be_known:
            return False
        for job in self.jobs.values():
            old = job.delivery
            assert old is not None  # The job runs.
            same = old.identity == identity and old.message.raw == message.raw
            if same and old.stale:
                job.delivery = delivery
                return True
        return False

    def wait(self, timeout: float) -> bool:
        """Wait until no handler runs; return whether that happened in time."""
        if not self.jobs:
            return True
        self._none_runs.clear()
        self._is_awaited = True
        return bool(self._none_runs.wait(timeout))

    def interrupt(self) -> None:
        """Throw :class:`Interrupted` into all handlers, and ignore their results."""
        for greenlet, job in list(self.jobs.items()):
            job.given_up = True
            greenlet.kill(Interrupted, block=False)

    def find_overdue(self, allowed: float) -> list[gevent.Greenlet]:
        """Return the greenlets whose jobs have run for over ``allowed`` seconds."""
        limit = time.monotonic() - allowed
        return [each for each, job in self.jobs.items() if job.started < limit]

    def count_overdue(self, allowed: float) -> int:
        """Count the jobs that have run for over ``allowed`` seconds.

        Jobs of abandoned handlers count until the handlers end.
        """
        return len(self.find_overdue(allowed)) + len(self._abandoned)

    def abandon(self, greenlet: gevent.Greenlet) -> Abandoned:
        """Remove the job of a handler that has ignored its time limit; return it."""
        job = self.jobs[greenlet]
        assert job.delivery is not None
        job.given_up = True
        self.remove(greenlet)
        self._abandoned.add(greenlet)
        greenlet.link(self._abandoned.discard)
        context = greenlet.gr_context
        handling = None if context is None else context.get(current)
        return Abandoned(job.delivery, job.started, handling)
