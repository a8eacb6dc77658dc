"""Show the gauges of a worker once a second, even while the event loop is blocked."""

from __future__ import annotations

import platform
import time
import typing as t
from collections import Counter
from collections.abc import Iterator

from flask import Flask

from ..appconsumers import AppConsumers
from ..broker.capabilities import Capabilities
from ..native_threads import Latch
from ..native_threads import NativeThread
from ..observing import metric_table
from ..observing.metrics import Metrics
from ..observing.metrics import get_metrics
from ..observing.series import Series
from ..observing.series import make_gauge
from ..version import VERSION
from .backlog_poller import BacklogPoller
from .backlog_poller import Reading
from .fair_share import TURN_SECONDS
from .fair_share import FairShare
from .health.verdict import Verdict
from .hub_clock import HubClock
from .subscription import Subscription

#: Seconds between two times that the gauges are shown.
_INTERVAL_SECONDS = 1.0

#: Seconds after which a reading of the queues is not shown any more.
_MAX_AGE_SECONDS = 30.0

#: Seconds to wait for the thread to end.
_JOIN_SECONDS = 2.0

#: The names under which the gauges are shown.
_WORKER, _QUEUES = "worker", "queues"


class ShownWatchdog(t.Protocol):
    """The attribute of a watchdog that is shown."""

    verdict: Verdict


class ShownWorker(t.Protocol):
    """The attributes of a worker that are shown."""

    app: Flask
    subscriptions: list[Subscription]
    fair_share: FairShare | None

    @property
    def watchdog(self) -> ShownWatchdog: ...


class WorkerGauges:
    """Shows the gauges of one worker, and of the queues, by a native thread.

    :param poller: Reads the gauges of the queues.
    """

    def __init__(
        self,
        worker: ShownWorker,
        capabilities: Capabilities,
        metrics: Metrics,
        poller: BacklogPoller,
    ) -> None:
        self._worker = worker
        self._metrics = metrics
        self._poller = poller
        self._info = _make_info(capabilities)
        self._clock = HubClock()
        self._shown: Reading | None = None
        self._over = Latch()
        self._thread = NativeThread(self._run, "gauges")

    def start(self) -> None:
        """Start. Call this in the thread that runs the worker's greenlets."""
        self._metrics.open()
        name = metric_table.HUB_BLOCKED_SECONDS.name
        (self._blocked,) = self._metrics.values.add([(name, (), ())])
        self._clock.start()
        self._poller.start()
        self._thread.start()

    def stop(self) -> None:
        """End, and show no gauges any more: the process may go on without a worker."""
        self._poller.stop()
        self._over.open()
        self._clock.close()
        if self._thread.join(_JOIN_SECONDS):
            self._metrics.show(_WORKER, [])
            self._metrics.show(_QUEUES, [])

    # -- in the native thread ---------------------------------------------------------

    def _run(self) -> None:
        while True:
            values, slot = self._blocked
            values[slot] += self._clock.measure_blocked()
            self._metrics.show(_WORKER, list(self._collect()))
            self._show_queues()
            if self._over.wait(_INTERVAL_SECONDS):
                return

    def _show_queues(self) -> None:
        """Show the latest reading of the queues once, and hide it when it is old."""
        latest = self._poller.latest
        if latest is not None and time.monotonic() - latest.at > _MAX_AGE_SECONDS:
            latest = None
        if latest is not self._shown:
            self._shown = latest
            self._metrics.show(_QUEUES, [] if latest is None else latest.gauges)

    def _collect(self) -> Iterator[Series]:
        verdict = self._worker.watchdog.verdict
        yield make_gauge(metric_table.LIVE, verdict.live)
        yield make_gauge(metric_table.READY, verdict.ready)
        for kind, count in Counter(each.kind for each in verdict.problems).items():
            yield make_gauge(metric_table.PROBLEMS, count, kind)
        yield make_gauge(metric_table.HUB_LATENCY_SECONDS, self._clock.latency)
        if self._worker.fair_share is not None:
            pause = self._worker.fair_share.pace.pause
            share = pause / (pause + TURN_SECONDS)
            yield make_gauge(metric_table.WEB_SHARE, share)
        yield self._info
        yield from _collect_consumers(self._worker.subscriptions)


def start_gauges(worker: ShownWorker, consumers: AppConsumers) -> WorkerGauges | None:
    """Show the gauges of a worker from now on, if the app has metrics."""
    metrics = get_metrics(worker.app)
    if metrics is None:
        return None
    poller = BacklogPoller(consumers, metrics)
    gauges = WorkerGauges(worker, consumers.broker.capabilities, metrics, poller)
    gauges.start()
    return gauges


def _collect_consumers(subscriptions: list[Subscription]) -> Iterator[Series]:
    """Yield the gauges of each consumer: its queue and its suspects together."""
    found: dict[str, list[Subscription]] = {}
    for each in list(subscriptions):
        found.setdefault(each.context.consumer.name, []).append(each)
    for name, of_consumer in found.items():
        connected = all(each.connected for each in of_consumer)
        busy = sum(each.busy for each in of_consumer)
        waiting = sum(each.waiting for each in of_consumer)
        yield make_gauge(metric_table.CONNECTED, connected, name)
        yield make_gauge(metric_table.IN_FLIGHT, busy, name)
        yield make_gauge(metric_table.PREFETCHED, waiting, name)


def _make_info(capabilities: Capabilities) -> Series:
    python = platform.python_version()
    labels = (VERSION, python, capabilities.title)
    return make_gauge(metric_table.WORKER_INFO, 1, *labels)
