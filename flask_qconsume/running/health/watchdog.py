"""Watches a worker from outside of its hub: is it live, is it ready, what is wrong?

Two take part. A greenlet looks at the subscriptions once a second, and logs what is
wrong, once; that it does shows that the hub runs. A thread of the operating system
looks at that greenlet, judges, and tells whoever wants to know, also while the hub is
blocked. It uses none of gevent's locks, and so does not log.
gevent's own monitor was not taken: it traces every switch (as coverage tools want to),
sees no hub that is starved by greenlets which switch among each other, and repeats
itself.
"""

from __future__ import annotations

import sys
import time
import typing as t
from collections.abc import Callable
from types import FrameType

import gevent

from ... import native_threads
from ...broker.base import SuspectsStatus
from ...broker.link import Lane
from ...logs import get_logger
from ...logs import measure_handler_hang
from ...native_threads import Latch
from ...native_threads import NativeThread
from ..greenlets import ProtectedGreenlet
from ..trouble_log import TroubleLog
from . import verdict
from .reporters import Recipients
from .verdict import Facts
from .verdict import Hunger
from .verdict import Limits
from .verdict import Settling
from .verdict import Silence
from .verdict import Slowness
from .verdict import Snapshot
from .verdict import Trouble
from .verdict import Verdict
from .verdict import judge

if t.TYPE_CHECKING:
    from ..subscription import Subscription
    from ..worker import Worker

logger = get_logger("flask_qconsume.watch")

#: Seconds between two looks.
INTERVAL = 1.0

#: Seconds that the end of the thread is waited for.
_PATIENCE = 2.0


class Watch:
    """Watches one worker, from its start to the end of its stop.

    :param interval: Seconds between two looks.
    """

    def __init__(self, worker: Worker, interval: float = INTERVAL) -> None:
        self._worker = worker
        self._interval = interval
        settings = worker.settings
        self._limits = Limits(
            settings.blocked_after, settings.stalled_after, settings.start_timeout
        )
        #: Set once the worker consumes, or tries to.
        self.started = False
        #: The latest verdict, which any thread may read.
        self.verdict = Verdict(live=True, ready=False)
        self._recipients = Recipients()
        self._pulse = 0
        self._facts: tuple[Facts, ...] = ()
        self._watched: dict[Subscription, _Watched] = {}
        self._slowness = Slowness(interval)
        self._slowed_for = 0.0
        self._greenlet: ProtectedGreenlet | None = None
        self._asking: ProtectedGreenlet | None = None
        self._logging: ProtectedGreenlet | None = None
        self._hub_thread = 0
        self._log = TroubleLog(logger)
        self._over = Latch()
        self._thread = NativeThread(self._watch, "watch")

    def tell(self, told: Callable[[Verdict], object]) -> None:
        """Have a function called with each verdict, in a thread of its own.

        It must not wait for the hub, nor for long.
        """
        self._recipients.add(told)

    def start(self) -> None:
        """Begin to watch. To be called on the worker's hub."""
        self._hub_thread = native_threads.get_thread_id()
        self._greenlet = ProtectedGreenlet.spawn(self._look_on)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        if self._greenlet is None:
            return
        self._greenlet.end()
        self._over.open()
        self._thread.join(_PATIENCE)

    # -- on the hub -------------------------------------------------------------------

    def _look_on(self) -> None:
        try:
            while True:
                try:
                    self._look()
                    gevent.sleep(self._interval)
                except gevent.GreenletExit:
                    raise
                except BaseException:
                    logger.exception("Watching was cut off; it goes on.")
        finally:
            for greenlet in filter(None, (self._asking, self._logging)):
                greenlet.end(block=False)

    def _look(self) -> None:
        watched = self._all()
        self._facts = tuple(each.facts() for each in watched)
        turns = self._worker.turns
        slowed = turns is not None and turns.slowed
        self._slowed_for = self._slowness.look(slowed)
        now = time.monotonic()
        due = [each for each in watched if each.is_due(now)]
        if due and not self._asking:  # A dead greenlet is false.
            self._asking = ProtectedGreenlet.spawn(self._ask, due)
        if not self._logging:  # In a greenlet of its own, for a log handler may hang.
            self._logging = ProtectedGreenlet.spawn(
                self._log.update, self.verdict.troubles
            )
        self._pulse += 1

    def _all(self) -> list[_Watched]:
        for subscription in self._worker.subscriptions:
            if subscription not in self._watched:
                self._watched[subscription] = _Watched(
                    subscription, self._limits, self._interval
                )
        return list(self._watched.values())

    def _ask(self, due: list[_Watched]) -> None:
        for watched in due:
            try:
                watched.ask(self._worker)
            except Exception as error:
                # Whatever ails the broker is told by those who need it.
                logger.debug("Cannot count '%s': %s", watched.queue, error)
                watched.unknown()

    # -- in a thread of its own -------------------------------------------------------

    def _watch(self) -> None:
        silence = Silence(self._interval)
        start = Silence(self._interval)
        before = time.monotonic()
        while not self._over.wait(self._interval):
            now = time.monotonic()
            silent = silence.look(self._pulse, now - before)
            starting = start.look(self.started, now - before)
            before = now
            verdict = judge(self._snapshot(silent, starting), self._limits)
            for trouble in verdict.troubles:
                if trouble.kind == "blocked" and self._log.note(trouble):
                    self._log_blocked(trouble)
            self.verdict = verdict
            self._recipients.tell(verdict)

    def _snapshot(self, silent: float, starting: float) -> Snapshot:
        turns = self._worker.turns
        return Snapshot(
            silent_for=silent,
            where=_place(self._frame()) if silent >= self._limits.blocked else "",
            started=self.started,
            starting_for=starting,
            logging_for=measure_handler_hang(),
            stopping=self._worker.stopping.is_set(),
            subscriptions=self._facts,
            slowed_for=self._slowed_for,
            late=0.0 if turns is None else turns.pace.late,
        )

    def _log_blocked(self, trouble: Trouble) -> None:
        """Log it now: it may never end. What blocks may be logging, so apart."""
        stack = native_threads.format_stack(self._hub_thread)
        native_threads.run_in_thread(
            "blocked", logger.error, "%s The stack:\n%s", trouble.text, stack
        )

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._hub_thread)


class _Watched:
    """One subscription, and what is remembered of it from look to look."""

    def __init__(
        self, subscription: Subscription, limits: Limits, interval: float
    ) -> None:
        self._subscription = subscription
        self._interval = interval
        self._settling = Settling()
        self._stuck = Settling()
        self._hunger = Hunger(limits.stalled)
        self._is_lane = subscription.lane is Lane.SUSPECTS
        self._period = limits.stalled / verdict.LOOKS
        self._asked = time.monotonic()
        self._waiting: int | None = None
        self._oldest: float | None = None

    @property
    def queue(self) -> str:
        return self._subscription.queue

    def is_due(self, now: float) -> bool:
        """Whether it is time to ask how many messages wait: when it has nothing to do;
        and in a lane of suspects always, since few are handled at once there."""
        subscription = self._subscription
        idle = subscription.connected and subscription.idle
        hungry = self._hunger.look(now, subscription.received, idle)
        return hungry or (self._is_lane and now - self._asked >= self._period)

    def ask(self, worker: Worker) -> None:
        """Ask the broker.

        :raises BrokerError: if it cannot be asked.
        """
        if self._is_lane:
            self.found(worker.suspects(self._subscription.consumer))
        else:
            self.found(SuspectsStatus(worker.depth(self.queue)))

    def unknown(self) -> None:
        """The broker cannot be asked."""
        self._asked = time.monotonic()
        self._waiting = self._oldest = None
        self._hunger.found(self._asked, 0)

    def found(self, waiting: SuspectsStatus) -> None:
        """So many wait."""
        self._asked = time.monotonic()
        self._waiting, self._oldest = waiting.waiting, _age(waiting.since)
        if self._subscription.idle:
            self._hunger.found(self._asked, waiting.waiting)

    def facts(self) -> Facts:
        subscription = self._subscription
        unsettled = subscription.unsettled
        stuck = [subscription.stuck] if subscription.stuck else []
        return Facts(
            name=subscription.name,
            queue=subscription.queue,
            connected=subscription.connected,
            tended=subscription.tended,
            limit=subscription.consumer.timeout,
            late=subscription.late,
            concurrency=subscription.concurrency,
            unsettled=len(unsettled),
            unsettled_for=self._settling.look(unsettled) * self._interval,
            put_off=subscription.puts_off,
            parks=subscription.parks,
            stuck_for=self._stuck.look(stuck) * self._interval,
            hungry_for=self._hunger.seconds,
            backlog=self._hunger.backlog,
            lane=self._lane() if self._is_lane else None,
        )

    def _lane(self) -> verdict.Lane:
        # What waited when we looked may be handled by now: it does not get older.
        known = [_age(self._subscription.suspected_since), self._oldest]
        oldest = max((each for each in known if each is not None), default=None)
        return verdict.Lane(self._subscription.consumer.name, self._waiting, oldest)


def _age(since: float | None) -> float | None:
    # Somebody else's clock may be ahead of ours.
    return None if since is None else max(0.0, time.time() - since)


def _place(frame: FrameType | None) -> str:
    """Where a frame is, for people."""
    if frame is None:
        return "an unknown place"
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in '{code.co_name}'"
