"""Everything that runs for one app in one process, and how it stops.

The stop, step by step: 1. ``stopping`` is set; 2. nothing more is fetched; 3. what no
handler has started goes back, no attempt charged; 4. running handlers are waited for,
their connections kept alive; 5. at the deadline they are interrupted, and their
messages go back, no attempt charged; 6. what was handled is settled; 7.
``teardown_worker`` hooks run, the last registered first; 8. connections are closed.
"""

from __future__ import annotations

import os
import time
import typing as t

import gevent
from flask import Flask
from gevent import monkey

from ..appconsumers import get_app_consumers
from ..broker.base import SuspectsStatus
from ..broker.checks import check_consumers
from ..broker.given_queues import list_effects
from ..broker.link import Lane
from ..errors import BrokerUnavailable
from ..errors import WorkerError
from ..handling import signals
from ..logs import get_logger
from ..registration.consumer import Consumer
from ..registration.missing import explain_no_consumers
from ..registration.missing import explain_unregistered
from ..registration.registry import find_consumer
from ..text import escape
from ..text import pluralize
from .event import Event
from .fair_share import SLICE
from .fair_share import Turns
from .greenlets import ProtectedGreenlet
from .health.watchdog import Watch
from .outages import OutageLog
from .pace import Pace
from .reconnect import Lookout
from .subscription import Subscription

logger = get_logger("flask_qconsume.worker")

#: Seconds that settling, and each hook, may take after the handlers' deadline.
_GRACE = 4.0

#: Seconds between two lines about what a stop waits for.
_PROGRESS = 5.0

_running: dict[int, Worker] = {}


class Worker:
    """Runs the consumers of an app in this process.

    :param app: The app; its ``QConsume`` says what there is to run.
    :param names: The full names of the consumers to run; all that are enabled unless
        given.
    :param beside_web: Whether a web server serves requests on the same hub, so that
        consumers are to take only the time that it leaves.
    """

    def __init__(
        self, app: Flask, names: t.Sequence[str] = (), *, beside_web: bool = False
    ) -> None:
        self.app = app
        self._consumers = get_app_consumers(app)
        self.settings = self._consumers.settings
        self.names = [consumer.name for consumer in self._chosen(names)]
        #: Set as soon as the worker is asked to stop.
        self.stopping = Event()
        self.subscriptions: list[Subscription] = []
        #: Knows whether it is live and ready, and what is wrong.
        self.watch = Watch(self)
        self._lookout = Lookout(lambda: self._consumers.broker.is_reachable())
        self._outages = OutageLog()
        self._hooks_begun = False
        self._beside_web = beside_web
        self.turns: Turns | None = None

    def start(self) -> None:
        """Run the ``before_worker`` hooks, then consume, in the background.

        A broker that does not answer is waited for; what it refuses is raised.

        :raises WorkerError: if this process is not patched by gevent, or the app's
            worker runs already.
        :raises UnsupportedByBroker: if a retry policy asks for more than the broker
            can do.
        :raises BrokerRefused: if the broker refuses the credentials.
        :raises TopologyMismatch: if queues cannot be declared as they should be.
        """
        _check_patched()
        check_consumers(self._chosen(self.names), self._consumers.broker.capabilities)
        self._warn_of_queues()
        self._claim()
        self.watch.start()
        try:
            self._declare()
            self._before()
        except BaseException:
            self._finish()
            raise
        if self._beside_web and self.settings.hub_latency:
            self.turns = self._take_turns()
        for consumer in self._chosen(self.names):
            self.subscriptions += self._subscribed(consumer)
        for subscription in self.subscriptions:
            subscription.start()
        self.watch.started = True
        signals.send(signals.worker_started, self.app, worker=self)
        if self.names:
            logger.info("Consuming %s", ", ".join(self.names))
            if unregistered := explain_unregistered():
                logger.warning("Not all consumers have an app. %s", unregistered)
        else:
            why = explain_no_consumers(self._consumers.consumers)
            logger.warning("Consuming nothing: %s", why)

    def quiet(self) -> None:
        """Begin the stop without waiting: fetch no more, give back what has not begun.

        For hosts that have to stop other things before :meth:`stop` may wait.
        """
        if self.stopping.is_set():
            return
        self.stopping.set()
        signals.send(signals.worker_stopping, self.app, worker=self)
        for subscription in self.subscriptions:
            subscription.quiet()

    def stop(self, timeout: float | None = None) -> bool:
        """Stop, losing nothing; see the module's description.

        :param timeout: Seconds to wait for running handlers;
            ``QCONSUME_SHUTDOWN_TIMEOUT`` unless given.
        :returns: Whether it was clean: no handler had to be interrupted, and all that
            was handled is settled.
        """
        if timeout is None:
            timeout = self.settings.shutdown_timeout
        deadline = time.monotonic() + timeout
        self.quiet()
        clean = self._wait(deadline) or self._interrupt()
        clean = self._settle() and clean
        self._finish()
        self._tell_of_losses()
        logger.info("Stopped %s", "cleanly" if clean else "with work given back")
        signals.send(signals.worker_stopped, self.app, worker=self, clean=clean)
        return clean

    @property
    def busy(self) -> int:
        """How many messages are being handled."""
        return sum(subscription.busy for subscription in self.subscriptions)

    @property
    def ready(self) -> bool:
        """Whether every consumer is connected and the worker is not stopping."""
        return (
            self.watch.started
            and not self.stopping.is_set()
            and all(subscription.connected for subscription in self.subscriptions)
        )

    def depth(self, queue: str) -> int:
        """How many messages wait in a queue.

        :raises BrokerError: if the broker cannot be asked.
        """
        return self._consumers.broker.depth(queue)

    def suspects(self, consumer: Consumer) -> SuspectsStatus:
        """How the lane of a consumer's suspects stands.

        :raises BrokerError: if the broker cannot be asked.
        """
        plan = self._consumers.topology.queue(consumer.queue)
        return self._consumers.broker.read_suspects(plan)

    def _chosen(self, names: t.Sequence[str]) -> list[Consumer]:
        consumers = self._consumers.consumers
        if names:
            return [find_consumer(consumers, name) for name in names]
        return [consumer for consumer in consumers.values() if consumer.enabled]

    def _subscribed(self, consumer: Consumer) -> list[Subscription]:
        main = self._subscription(consumer, Lane.MAIN)
        if not self._consumers.broker.capabilities.survives_worker_death:
            return [main]  # Where messages die with the worker, none is ever a suspect.
        return [main, self._subscription(consumer, Lane.SUSPECTS, main)]

    def _subscription(
        self, consumer: Consumer, lane: Lane, main: Subscription | None = None
    ) -> Subscription:
        return Subscription(
            self.app,
            self._consumers.broker,
            self._lookout,
            self._outages,
            self.settings,
            consumer,
            self._consumers.topology.queue(consumer.queue),
            lane,
            self.stopping,
            main,
            self.turns,
        )

    def _take_turns(self) -> Turns:
        latency, share = self.settings.hub_latency, self.settings.least_share
        logger.info(
            "The web server goes first: messages are begun in the time that it leaves,"
            " and less often while the hub is more than %g ms late",
            latency * 1000,
        )
        return Turns(Pace(latency, longest=SLICE / share), share)

    def _warn_of_queues(self) -> None:
        capabilities = self._consumers.broker.capabilities
        for consumer in self._chosen(self.names):
            for effect in list_effects(consumer.given, capabilities, warns=True):
                logger.warning("%s: its kombu.Queue has %s", consumer.name, effect)

    def _claim(self) -> None:
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

    def _before(self) -> None:
        self._hooks_begun = True
        for hook in self._consumers.registry.worker_hooks("before"):
            with self.app.app_context():
                hook()

    def _wait(self, deadline: float) -> bool:
        """Wait for running handlers, telling now and then how many there are."""
        while (left := deadline - time.monotonic()) > 0 and self.busy:
            gevent.wait(
                [
                    ProtectedGreenlet.spawn(s.wait, min(left, _PROGRESS))
                    for s in self.subscriptions
                ]
            )
            if self.busy and left > _PROGRESS:
                logger.info(
                    "Stopping: still handling %s, %.0f s left",
                    pluralize(self.busy, "message"),
                    deadline - time.monotonic(),
                )
        return self.busy == 0

    def _interrupt(self) -> bool:
        logger.warning(
            "Interrupting %s at the deadline; what they handle goes back",
            pluralize(self.busy, "handler"),
        )
        for subscription in self.subscriptions:
            subscription.interrupt()
        self._wait(time.monotonic() + 1.0)
        return False

    def _settle(self) -> bool:
        closing = [ProtectedGreenlet.spawn(s.close, _GRACE) for s in self.subscriptions]
        gevent.joinall(closing)
        return all(greenlet.value for greenlet in closing)

    def _tell_of_losses(self) -> None:
        lost = self._consumers.broker.count_kept_in_process()
        if lost:
            logger.warning(
                "%s in memory, retries and dead letters included: lost when this"
                " process ends",
                pluralize(lost, "message"),
            )

    def _finish(self) -> None:
        if self._hooks_begun:
            for hook in self._consumers.registry.worker_hooks("teardown"):
                self._teardown(hook)
        self._lookout.close()
        self._consumers.close()
        self.watch.stop()
        if self.turns is not None:
            self.turns.close()
        _running.pop(id(self.app), None)

    def _teardown(self, hook: t.Callable[[], t.Any]) -> None:
        try:
            with gevent.Timeout(_GRACE), self.app.app_context():
                hook()
        except BaseException:
            logger.exception("A 'teardown_worker' hook failed; the others go on.")


def running(app: Flask) -> Worker | None:
    """The worker that runs for an app in this process, if there is one."""
    return _running.get(id(app))


def _check_patched() -> None:
    if not monkey.is_module_patched("socket"):
        raise WorkerError(
            "Consumers need a process that gevent has patched before anything else was"
            " imported, or one handler that waits would stop all others. Start it by"
            " 'flask qconsume run', by 'gunicorn -k gevent', or by 'python -m"
            " gevent.monkey --module flask …'."
        )
