"""The messages that the handlers of one subscription are working on."""

from __future__ import annotations

import time

import gevent

from ..broker.link import Delivery
from ..errors import Interrupted
from .event import Event


class Job:
    """The message that one greenlet is handling, and when the handling began."""

    __slots__ = ("delivery", "given_up", "started")

    #: When handling began, on :func:`time.monotonic`'s clock.
    started: float

    def __init__(self) -> None:
        #: Replaced if the broker redelivers the same message meanwhile; ``None`` while
        #: the greenlet is free.
        self.delivery: Delivery | None = None
        #: True if the handler's result is to be ignored; the greenlet ends afterwards.
        self.given_up = False


class RunningJobs:
    """The messages that are being handled, by greenlet; one :class:`Job` for each."""

    def __init__(self) -> None:
        #: By greenlet; entered and removed by :class:`~.handlers.Handlers`.
        self.jobs: dict[gevent.Greenlet, Job] = {}
        #: Greenlets that ignored their time limit and still run.
        self._abandoned: set[gevent.Greenlet] = set()
        self._none_runs = Event()
        self._is_awaited = False

    def remove(self, greenlet: gevent.Greenlet) -> None:
        """Record that a greenlet has finished its message."""
        self.jobs.pop(greenlet, None)
        if self._is_awaited and not self.jobs:
            self._none_runs.set()

    def adopt(self, delivery: Delivery) -> bool:
        """Give a redelivered message to the handler that is still working on it.

        After a lost connection the broker redelivers messages that are still being
        handled here. Starting a second handler would make a duplicate, so the running
        handler's stale delivery is replaced by the new one.

        :returns: True if a handler is working on the message.
        """
        message, identity = delivery.message, delivery.identity
        if identity is None or not message.redelivered:
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
        """Return greenlets that have handled a message for over ``allowed`` seconds."""
        limit = time.monotonic() - allowed
        return [each for each, job in self.jobs.items() if job.started < limit]

    def count_overdue(self, allowed: float) -> int:
        """Count the handlers that have run for over ``allowed`` seconds.

        Abandoned handlers count for as long as they run.
        """
        return len(self.find_overdue(allowed)) + len(self._abandoned)

    def abandon(self, greenlet: gevent.Greenlet) -> tuple[Delivery, float]:
        """Ignore the result of a busy greenlet.

        :returns: The delivery being handled, and when its handling began.
        """
        job = self.jobs[greenlet]
        assert job.delivery is not None
        job.given_up = True
        self.remove(greenlet)
        self._abandoned.add(greenlet)
        greenlet.link(self._abandoned.discard)
        return job.delivery, job.started
