"""The messages that handlers of one subscription are working on."""

from __future__ import annotations

import time

import gevent

from ..broker.link import Delivery
from ..errors import Interrupted
from .event import Event


class Job:
    """The work of one greenlet of a handler."""

    __slots__ = ("delivery", "given_up", "started")

    #: On :func:`time.monotonic`'s clock.
    started: float

    def __init__(self) -> None:
        #: Replaced when the broker delivers the same message again meanwhile; ``None``
        #: while the greenlet is free.
        self.delivery: Delivery | None = None
        #: The result does not count any more, and the greenlet ends after it.
        self.given_up = False


class RunningJobs:
    """The present message of each busy greenlet, and since when it has it."""

    def __init__(self) -> None:
        #: By greenlet; entered and removed by :class:`~.handlers.Handlers`.
        self.jobs: dict[gevent.Greenlet, Job] = {}
        #: Greenlets that ignored their time limit and still run.
        self._abandoned: set[gevent.Greenlet] = set()
        self._none_runs = Event()
        self._is_awaited = False

    def remove(self, greenlet: gevent.Greenlet) -> None:
        """Note that a greenlet is done with its message."""
        self.jobs.pop(greenlet, None)
        if self._is_awaited and not self.jobs:
            self._none_runs.set()

    def adopt(self, delivery: Delivery) -> bool:
        """Replace the stale delivery of a message that is being handled by a new one.

        After a lost connection the broker delivers messages again that are still being
        handled here; starting them a second time would make duplicates.

        :returns: Whether the message is being handled.
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
        """Wait until no handler runs; return false if the timeout was first."""
        if not self.jobs:
            return True
        self._none_runs.clear()
        self._is_awaited = True
        return bool(self._none_runs.wait(timeout))

    def interrupt(self) -> None:
        """Throw :class:`Interrupted` into all handlers; their results do not count."""
        for greenlet, job in list(self.jobs.items()):
            job.given_up = True
            greenlet.kill(Interrupted, block=False)

    def find_overdue(self, allowed: float) -> list[gevent.Greenlet]:
        """The greenlets that have handled one message for over ``allowed`` seconds."""
        limit = time.monotonic() - allowed
        return [each for each, job in self.jobs.items() if job.started < limit]

    def count_overdue(self, allowed: float) -> int:
        """Number of handlers that have run for longer, the abandoned ones included."""
        return len(self.find_overdue(allowed)) + len(self._abandoned)

    def abandon(self, greenlet: gevent.Greenlet) -> Delivery:
        """Abandon a greenlet; return the delivery that it has not finished."""
        job = self.jobs[greenlet]
        assert job.delivery is not None
        job.given_up = True
        self.remove(greenlet)
        self._abandoned.add(greenlet)
        greenlet.link(self._abandoned.discard)
        return job.delivery
