"""Watches the health of a worker, even while gevent's event loop is blocked.

Two parts work together. A greenlet collects facts about the subscriptions once a
second, and logs problems; each of its rounds proves that the event loop runs. A native
thread watches that greenlet, judges the facts, and reports the verdict, even while the
event loop is blocked. The thread uses none of gevent's locks, and so does not log.

gevent's own monitor is not used: it traces every greenlet switch (as coverage tools
need to), does not see an event loop that is starved by greenlets which switch among
each other, and repeats its reports.
"""

from __future__ import annotations

import sys
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence
from types import FrameType

import gevent

from ... import native_threads
from ...handling.events import Events
from ...logs import get_logger
from ...logs import measure_handler_hang
from ...native_threads import Latch
from ...native_threads import NativeThread
from ...settings import Settings
from ..event import Event
from ..fair_share import FairShare
from ..greenlets import ProtectedGreenlet
from ..subscription import Subscription
from .condition_timer import ConditionTimer
from .facts import HealthLimits
from .facts import SubscriptionFacts
from .facts import WorkerFacts
from .judge import judge
from .problem_events import ProblemEvents
from .problem_log import ProblemLog
from .reporters import Reporter
from .subscription_check import SubscriptionCheck
from .verdict import Problem
from .verdict import Verdict

logger = get_logger("flask_qconsume.watchdog")

#: Seconds between two checks until the worker has started.
_STARTING_INTERVAL = 0.2
#: Seconds between two checks.
_INTERVAL = 1.0

#: Seconds to wait for the thread to end.
_JOIN_SECONDS = 2.0


class WatchedWorker(t.Protocol):
    """The attributes of a worker that its watchdog reads."""

    settings: Settings
    events: Events
    stopping: Event
    subscriptions: list[Subscription]
    fair_share: FairShare | None


class Watchdog:
    """Watches the health of one worker, from its start to the end of its stop.

    :param interval: Seconds between two checks.
    """

    def __init__(self, worker: WatchedWorker, interval: float = _INTERVAL) -> None:
        self._worker = worker
        self._interval = interval
        settings = worker.settings
        self._limits = HealthLimits(
            settings.blocked_after, settings.stalled_after, settings.start_timeout
        )
        #: True once the worker consumes, or tries to connect.
        self.started = False
        #: The same at the last look. If true, its facts include all subscriptions.
        self._has_started = False
        #: The latest verdict, which any thread may read.
        self.verdict = Verdict(live=True, ready=False)
        self._reporter = Reporter()
        self._looks = 0
        self._facts: tuple[SubscriptionFacts, ...] = ()
        self._checks: dict[Subscription, SubscriptionCheck] = {}
        self._slowness = ConditionTimer(interval)
        self._slowed_for = 0.0
        self._greenlet: ProtectedGreenlet | None = None
        self._asking: ProtectedGreenlet | None = None
        self._logging: ProtectedGreenlet | None = None
        self._hub_thread = 0
        self._log = ProblemLog(logger)
        self._problem_events = ProblemEvents(worker.events)
        self._over = Latch()
        self._thread = NativeThread(self._watch, "watchdog")

    @property
    def _pause(self) -> float:
        """Seconds until the next check; a worker that starts is soon ready."""
        longest = _STARTING_INTERVAL if not self._has_started else self._interval
        return min(longest, self._interval)

    def add_outlet(self, outlet: Callable[[Verdict], object]) -> None:
        """Add a function that gets each verdict, in a native thread.

        The function must be fast, and must not wait for gevent's event loop.
        """
        self._reporter.add_outlet(outlet)

    def start(self) -> None:
        """Begin to watch; call this in the thread that runs the worker's greenlets."""
        self._hub_thread = native_threads.get_thread_id()
        self._greenlet = ProtectedGreenlet.spawn(self._run_looks)
        self._thread.start()

    def stop(self) -> None:
        if self._greenlet is None:
            return
        self._greenlet.end()
        self._over.open()
        self._thread.join(_JOIN_SECONDS)

    # -- in greenlets -----------------------------------------------------------------

    def _run_looks(self) -> None:
        try:
            while True:
                try:
                    self._check_subscriptions()
                    gevent.sleep(self._pause)
                except gevent.GreenletExit:
                    raise
                except BaseException:
                    logger.exception("Watching was cut off; it goes on.")
        finally:
            for greenlet in filter(None, (self._asking, self._logging)):
                greenlet.end(block=False)

    def _check_subscriptions(self) -> None:
        # Read before the subscriptions, which the worker creates before it is started.
        started = self.started
        checks = self._update_checks()
        self._facts = tuple(check.collect() for check in checks)
        self._has_started = started
        fair_share = self._worker.fair_share
        slowed = fair_share is not None and fair_share.is_slowed
        self._slowed_for = self._slowness.look(["slowed"] if slowed else [])
        now = time.monotonic()
        due = [check for check in checks if check.is_due(now)]
        if due and not self._asking:  # A dead greenlet is false.
            self._asking = ProtectedGreenlet.spawn(_ask_all, due)
        if not self._logging:  # In a greenlet of its own, for a log handler may hang.
            self._logging = ProtectedGreenlet.spawn(
                self._tell_problems, self.verdict.problems
            )
        self._looks += 1

    def _tell_problems(self, problems: Sequence[Problem]) -> None:
        self._problem_events.update(problems)
        self._log.update(problems)

    def _update_checks(self) -> list[SubscriptionCheck]:
        for subscription in self._worker.subscriptions:
            if subscription not in self._checks:
                check = SubscriptionCheck(subscription, self._limits, self._interval)
                self._checks[subscription] = check
        return list(self._checks.values())

    # -- in the native thread ---------------------------------------------------------

    def _watch(self) -> None:
        blocked = ConditionTimer(self._interval)
        starting = ConditionTimer(self._interval)
        before = time.monotonic()
        while not self._over.wait(self._pause):
            now = time.monotonic()
            elapsed, before = now - before, now
            facts = self._collect_facts(
                blocked.look([self._looks], elapsed),
                starting.look([self.started], elapsed),
            )
            verdict = judge(facts, self._limits)
            for problem in verdict.problems:
                if problem.kind == "blocked" and self._log.note(problem):
                    self._log_blocked(problem)
            self.verdict = verdict
            self._reporter.report(verdict)

    def _collect_facts(self, blocked_for: float, starting_for: float) -> WorkerFacts:
        fair_share = self._worker.fair_share
        blocked = blocked_for >= self._limits.blocked
        return WorkerFacts(
            blocked_for=blocked_for,
            blocked_at=_describe_place(self._find_frame()) if blocked else "",
            started=self._has_started,
            starting_for=starting_for,
            logging_for=measure_handler_hang(),
            stopping=self._worker.stopping.is_set(),
            subscriptions=self._facts,
            slowed_for=self._slowed_for,
            hub_latency=0.0 if fair_share is None else fair_share.pace.late,
        )

    def _log_blocked(self, problem: Problem) -> None:
        """Log that the event loop is blocked, in another native thread.

        The blocking code may hold the log's locks, and this thread must not wait for
        them.
        """
        stack = native_threads.format_stack(self._hub_thread)
        native_threads.run_in_thread(
            "blocked", logger.error, "%s The stack:\n%s", problem.text, stack
        )

    def _find_frame(self) -> FrameType | None:
        return sys._current_frames().get(self._hub_thread)


def _ask_all(checks: Sequence[SubscriptionCheck]) -> None:
    for check in checks:
        check.ask()


def _describe_place(frame: FrameType | None) -> str:
    if frame is None:
        return "an unknown place"
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in '{code.co_name}'"
