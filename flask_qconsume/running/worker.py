"""Runs the consumers of one app in one process, and stops them.

The stop, step by step: 1. ``stopping`` is set. 2. No more messages are fetched. 3.
Messages that no handler has started go back to the broker, without counting an attempt.
4. The worker waits for running handlers, and keeps their connections alive. 5. At the
deadline it interrupts them, and their messages go back in the same way. 6. Handled
messages are settled. 7. ``teardown_worker`` hooks run, the last registered first. 8.
Connections are closed.
"""

from __future__ import annotations

import os
import time
import typing as t

import gevent
from flask import Flask
from gevent import monkey

from ..appconsumers import get_app_consumers
from ..broker.capabilities import Capabilities
from ..broker.checks import check_consumers
from ..broker.given_queues import list_effects
from ..broker.link import Lane
from ..databases.engine_checks import list_engine_problems
from ..errors import BrokerUnavailable
from ..errors import WorkerError
from ..handling.events import tell
from ..logs import get_logger
from ..observing.log_context import ensure_log_context
from ..registration.consumer import Consumer
from ..registration.missing import explain_no_consumers
from ..registration.missing import explain_unregistered
from ..registration.registry import find_consumer
from ..text import escape
from ..text import pluralize
from .event import Event
from .fair_share import TURN_SECONDS
from .fair_share import FairShare
from .fair_share import Pace
from .greenlets import ProtectedGreenlet
from .health.watchdog import Watchdog
from .outage_log import OutageLog
from .reconnect import BrokerProbe
from .subscription import Subscription
from .subscription_context import WorkerContext
from .worker_gauges import WorkerGauges
from .worker_gauges import start_gauges
from .worker_tracing import begin_tracing

logger = get_logger("flask_qconsume.worker")

#: Seconds that settling, and each hook, may take after the handlers' deadline.
_GRACE_SECONDS = 4.0

#: Seconds that interrupted handlers get to end.
_INTERRUPTED_SECONDS = 1.0

#: Seconds between two log lines about the progress of a stop.
_PROGRESS_SECONDS = 5.0

#: The workers that run in this process, by the id of their app.
_running: dict[int, Worker] = {}


class Worker:
    """Runs the consumers of one app in this process.

    :param app: The app with the consumers and an initialized ``QConsume``.
    :param names: The full names of the consumers to run; by default, all that are
        enabled.
    :param beside_web: Whether a web server runs in the same process, so that requests
        have priority over messages.
    """

    def __init__(
        self, app: Flask, names: t.Sequence[str] = (), *, beside_web: bool = False
    ) -> None:
        self.app = app
        self._consumers = get_app_consumers(app)
        self.settings = self._consumers.settings
        self.events = self._consumers.events
        self.names = [consumer.name for consumer in self._find_consumers(names)]
        #: Set as soon as the worker is asked to stop.
        self.stopping = Event()
        self.subscriptions: list[Subscription] = []
        #: Knows whether the worker is live and ready, and its problems.
        self.watchdog = Watchdog(self)
        self._probe = BrokerProbe(lambda: self._consumers.broker.is_reachable())
        self._outages = OutageLog()
        self._hooks_begun = False
        self._beside_web = beside_web
        #: Decides when messages may be begun; ``None``: at any time.
        self.fair_share: FairShare | None = None
        self._gauges: WorkerGauges | None = None

    def start(self) -> None:
        """Run the ``before_worker`` hooks, then consume in the background.

        If the broker does not answer, the worker keeps trying; if the broker refuses,
        the error is raised.

        :raises WorkerError: if this process is not patched by gevent, or the app's
            worker runs already.
        :raises UnsupportedByBroker: if a retry policy needs what the broker cannot do.
        :raises BrokerRefused: if the broker refuses the credentials.
        :raises TopologyMismatch: if a queue or exchange exists with other arguments.
        """
        _check_patched()
        chosen = self._find_consumers(self.names)
        check_consumers(chosen, self._consumers.broker.capabilities)
        ensure_log_context(self.settings)
        _warn_of_queues(chosen, self._consumers.broker.capabilities)
        self._register()
        self.watchdog.start()
        try:
            self._declare()
            self._run_before_hooks()
            _warn_of_engines(self.app, chosen)
            begin_tracing(self.app)
        except BaseException:
            self._finish()
            raise
        self.subscriptions += self._create_subscriptions()
        for subscription in self.subscriptions:
            subscription.start()
        self.watchdog.started = True
        self._gauges = start_gauges(self, self._consumers)
        tell(self.events.worker_started, self)
        self._log_start()

    def quiet(self) -> None:
        """Begin the stop: fetch no more messages, and return those not started.

        For servers that have to stop other parts first, since :meth:`stop` waits.
        """
        if self.stopping.is_set():
            return
        self.stopping.set()
        tell(self.events.worker_stopping, self)
        for subscription in self.subscriptions:
            subscription.quiet()

    def stop(self, timeout: float | None = None) -> bool:
        """Stop without losing a message; see the module's docstring.

        :param timeout: Seconds to wait for running handlers;
            ``QCONSUME_SHUTDOWN_TIMEOUT`` unless given.
        :returns: Whether the stop was clean: no handler had to be interrupted, and all
            handled messages are settled.
        """
        if timeout is None:
            timeout = self.settings.shutdown_timeout
        deadline = time.monotonic() + timeout
        self.quiet()
        clean = self._wait(deadline) or self._interrupt()
        clean = self._settle() and clean
        self._finish()
        self._warn_of_losses()
        logger.info("Stopped %s", "cleanly" if clean else "with work given back")
        tell(self.events.worker_stopped, self, clean)
        return clean

    @property
    def busy(self) -> int:
        """Number of messages that are being handled."""
        return sum(subscription.busy for subscription in self.subscriptions)

    @property
    def ready(self) -> bool:
        """True if all consumers are connected, and the worker is not stopping."""
        return (
            self.watchdog.started
            and not self.stopping.is_set()
            and all(subscription.connected for subscription in self.subscriptions)
        )

    def _find_consumers(self, names: t.Sequence[str]) -> list[Consumer]:
        consumers = self._consumers.consumers
        if names:
            return [find_consumer(consumers, name) for name in names]
        return [consumer for consumer in consumers.values() if consumer.enabled]

    def _create_subscriptions(self) -> list[Subscription]:
        broker = self._consumers.broker
        if self._beside_web and self.settings.hub_latency:
            self.fair_share = self._create_fair_share()
        context = WorkerContext(
            self.app,
            broker,
            self.settings,
            self.events,
            self.stopping,
            self._probe,
            self._outages,
            self.fair_share,
        )
        created = []
        for consumer in self._find_consumers(self.names):
            plan = self._consumers.topology.queue(consumer.queue)
            main = Subscription(context, consumer, plan, Lane.MAIN)
            created.append(main)
            # If messages do not outlive the worker, none of them can become a suspect.
            if broker.capabilities.survives_worker_death:
                created.append(
                    Subscription(context, consumer, plan, Lane.SUSPECTS, main)
                )
        return created

    def _create_fair_share(self) -> FairShare:
        latency, share = self.settings.hub_latency, self.settings.least_share
        logger.info(
            "Web requests have priority over messages: messages are begun while the hub"
            " is idle, and less often while it is more than %g ms late",
            latency * 1000,
        )
        return FairShare(Pace(latency, longest=TURN_SECONDS / share), share)

    def _log_start(self) -> None:
        if self.names:
            logger.info("Consuming %s", ", ".join(self.names))
            if unregistered := explain_unregistered():
                logger.warning("Not all consumers have an app. %s", unregistered)
        else:
            why = explain_no_consumers(self._consumers.consumers)
            logger.warning("Consuming nothing: %s", why)

    def _register(self) -> None:
        key = id(self.app)
        if self.stopping.is_set():
            raise WorkerError("A worker runs once; make a new 'Worker' to run again.")
        if key in _running:
            raise WorkerError(
                f"A worker of the app '{self.app.import_name}' runs already in process"
                f" {os.getpid()}. Give its consumers more 'concurrency' to do more at"
                " once; 'flask qconsume run --processes N' uses more cores."
            )
        _running[key] = self
        self._consumers.broker.note_worker()

    def _declare(self) -> None:
        try:
            self._consumers.broker.declare()
        except BrokerUnavailable as error:
            logger.warning("The broker is not ready yet: %s", escape(error))

    def _run_before_hooks(self) -> None:
        self._hooks_begun = True
        for hook in self._consumers.registry.list_worker_hooks("before"):
            with self.app.app_context():
                hook()

    def _wait(self, deadline: float) -> bool:
        while (left := deadline - time.monotonic()) > 0 and self.busy:
            gevent.wait(
                [
                    ProtectedGreenlet.spawn(s.wait, min(left, _PROGRESS_SECONDS))
                    for s in self.subscriptions
                ]
            )
            if self.busy and left > _PROGRESS_SECONDS:
                logger.info(
                    "Stopping: still handling %s, %.0f s left",
                    pluralize(self.busy, "message"),
                    deadline - time.monotonic(),
                )
        return self.busy == 0

    def _interrupt(self) -> bool:
        logger.warning(
            "Interrupting %s at the deadline; their messages go back",
            pluralize(self.busy, "handler"),
        )
        for subscription in self.subscriptions:
            subscription.interrupt()
        self._wait(time.monotonic() + _INTERRUPTED_SECONDS)
        return False

    def _settle(self) -> bool:
        closing = [
            ProtectedGreenlet.spawn(s.close, _GRACE_SECONDS) for s in self.subscriptions
        ]
        gevent.joinall(closing)
        return all(greenlet.value for greenlet in closing)

    def _warn_of_losses(self) -> None:
        lost = self._consumers.broker.count_kept_in_process()
        if lost:
            logger.warning(
                "%s in memory, retries and dead letters included: lost when this"
                " process ends",
                pluralize(lost, "message"),
            )

    def _finish(self) -> None:
        if self._hooks_begun:
            for hook in self._consumers.registry.list_worker_hooks("teardown"):
                self._run_teardown_hook(hook)
        self._probe.close()
        if self._gauges is not None:
            self._gauges.stop()
        self._consumers.close()
        self.watchdog.stop()
        if self.fair_share is not None:
            self.fair_share.close()
        _running.pop(id(self.app), None)

    def _run_teardown_hook(self, hook: t.Callable[[], t.Any]) -> None:
        try:
            with gevent.Timeout(_GRACE_SECONDS), self.app.app_context():
                hook()
        except BaseException:
            logger.exception("A 'teardown_worker' hook failed; the others go on.")


def find_worker(app: Flask) -> Worker | None:
    """Return the worker of an app that is running in this process, or ``None``."""
    return _running.get(id(app))


def _warn_of_queues(
    consumers: t.Sequence[Consumer], capabilities: Capabilities
) -> None:
    for consumer in consumers:
        for effect in list_effects(consumer.given, capabilities, warns=True):
            logger.warning("%s: its kombu.Queue has %s", consumer.name, effect)


def _warn_of_engines(app: Flask, consumers: t.Sequence[Consumer]) -> None:
    concurrency = sum(consumer.concurrency for consumer in consumers)
    for text in list_engine_problems(app, concurrency):
        logger.warning("%s", text)


def _check_patched() -> None:
    if not monkey.is_module_patched("socket"):
        raise WorkerError(
            "Consumers need a process that gevent has patched before other modules were"
            " imported, or one handler that waits would stop all others. Start it by"
            " 'flask qconsume run', by 'gunicorn -k gevent', or by 'python -m"
            " gevent.monkey --module flask …'."
        )
