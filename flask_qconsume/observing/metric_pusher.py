"""Pushes the metrics of an app every so often, from one process of a host.

A process begins with its first publish, or when its worker starts. Of the processes
that share a metric folder, only the one that holds a lock pushes, with the sums of all.
Sums are cumulated since the folder's beginning, so a push that fails loses no counts.

A process that stops releases the lock before its last push. So a process that stops
and finds the lock held knows that its counts are in a later push of the holder.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import pathlib
import threading
import time
import typing as t
import weakref
from collections.abc import Callable
from collections.abc import Sequence

from ..background_thread import BackgroundThread
from ..first_use import ForkGuard
from ..first_use import PerProcess
from ..handling.events import Listener
from ..logs import get_logger
from ..message import Outgoing
from ..native_threads import NativeThread
from ..native_threads import get_hub_id
from ..text import escape
from .host_lock import HostLock
from .metric_families import MetricFamily
from .metric_families import group_by_metric
from .metric_folder import Origin
from .metrics import Metrics

if t.TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

    from .otlp import OtlpSender

logger = get_logger("flask_qconsume.metrics")

#: Seconds that a stop waits for the last push.
_LAST_PUSH_SECONDS = 2.0

#: Seconds after which it is checked whether a notification was missed.
_NOTIFICATION_SECONDS = 1.0

T = t.TypeVar("T")

_all: weakref.WeakSet[MetricPusher] = weakref.WeakSet()


class MetricPusher(Listener):
    """Pushes the metrics of an app, from each process that publishes or consumes.

    :param sender: Sends the metrics.
    :param interval: Seconds from one push to the next.
    :param prepare: Called in the thread that pushes, when it has created an exporter.
    """

    def __init__(
        self,
        metrics: Metrics,
        sender: OtlpSender,
        interval: float,
        prepare: Callable[[], object],
    ) -> None:
        self._pushing = PerProcess(
            lambda: _Pushing(metrics, sender, interval, prepare),
            leave=lambda pushing: pushing.leave_to_parent(),
        )
        _all.add(self)

    def publishing(self, messages: Sequence[Outgoing]) -> None:
        """Begin to push, unless this process does it already."""
        if self._pushing.made is None:
            self._pushing.get()

    def worker_started(self, worker: t.Any) -> None:
        """Begin to push, unless this process does it already."""
        self._pushing.get()

    def worker_stopped(self, worker: t.Any, clean: bool) -> None:
        """Push what the worker has counted."""
        self.stop()

    def stop(self) -> None:
        """Push a last time, for 2 seconds at most. A later publish begins again."""
        pushing = self._pushing.take()
        if pushing is not None:
            pushing.stop()


class _Pushing:
    """A thread that pushes until it is stopped; under gevent, a greenlet."""

    def __init__(
        self,
        metrics: Metrics,
        sender: OtlpSender,
        interval: float,
        prepare: Callable[[], object],
    ) -> None:
        self._metrics = metrics
        self._sender = sender
        self._interval = interval
        self._prepare = prepare
        self._lock: HostLock | None = None
        if metrics.folder is not None:
            self._lock = HostLock(pathlib.Path(metrics.folder) / "push.lock")
        self._exporter: MetricExporter | None = None
        self._outage = _PushOutage()
        self._fork_guard = ForkGuard()
        self._over = threading.Event()
        #: Whether the stop does not wait any longer.
        self._abandoned = False
        # In a context of its own: a handler's would give it the handler's span.
        context = contextvars.Context()
        self._thread = BackgroundThread(lambda: context.run(self._run))
        self._thread.start()

    def leave_to_parent(self) -> None:
        """In a forked child: close the lock, which is the parent's."""
        if self._lock is not None:
            self._lock.release()

    def stop(self) -> None:
        """Push a last time, and end."""
        self._over.set()
        if not self._thread.join(_LAST_PUSH_SECONDS):
            self._abandoned = True
            self._outage.begin(
                "The process stops without the end of its last push of metrics, after"
                " %g s",
                _LAST_PUSH_SECONDS,
            )
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            from .otlp import shut_down

            with contextlib.suppress(Exception):
                shut_down(exporter)

    def _run(self) -> None:
        while not self._wait():
            self._fork_guard.block_if_forked()
            if self._is_holder():
                self._push()
        self._fork_guard.block_if_forked()
        if self._is_holder():
            self._release()
            if not self._abandoned:
                self._push()

    def _wait(self) -> bool:
        """Wait until the next push is due; return whether it is the last one."""
        try:
            return self._over.wait(self._interval)
        except BaseException:  # An app may kill all greenlets that it finds.
            return self._over.is_set()

    def _is_holder(self) -> bool:
        if self._lock is None:
            return True
        # Without a folder that it can use, each process pushes only its own metrics.
        with contextlib.suppress(OSError):
            return self._lock.acquire()
        return True

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _push(self) -> None:
        try:
            sent = self._send()
        except BaseException as error:
            self._note_failure(f"{type(error).__name__}: {error}")
        else:
            if sent:
                self._outage.end()
            else:
                self._note_failure("see the log lines of the exporter")
        self._fork_guard.block_if_forked()

    def _note_failure(self, reason: str) -> None:
        self._outage.begin(
            "Cannot push the metrics; trying again every %g s, and no counts are lost"
            " meanwhile: %s",
            self._interval,
            escape(reason),
        )

    def _send(self) -> bool:
        if self._exporter is None:
            self._exporter = self._sender.create_exporter()
            self._prepare()
        self._metrics.open()
        return self._sender.send(self._exporter, *_call_off_hub(self._read))

    def _read(self) -> tuple[list[MetricFamily], Origin, float]:
        """Read the metrics; return them, their origin, and the time."""
        with_pid = self._metrics.folder is not None
        families = list(group_by_metric(self._metrics.read(), with_pid=with_pid))
        return families, self._metrics.identify(), time.time()


def _call_off_hub(function: Callable[[], T]) -> T:
    """Call a function in a native thread, so that greenlets run meanwhile.

    Reading the numbers of 100 consumers takes 20 ms for each process. Without gevent,
    the function is called in this thread.
    """
    if not get_hub_id():
        return function()
    found: list[T] = []
    thread = NativeThread(lambda: found.append(function()), "push")
    try:
        thread.start()
    except RuntimeError:  # Python is shutting down.
        return function()
    # A forked child may have read the notification instead.
    while not thread.join(_NOTIFICATION_SECONDS):
        pass
    if thread.error is not None:
        raise thread.error
    return found[0]


class _PushOutage:
    """Logs the first of several failed pushes, and the next one that succeeds."""

    def __init__(self) -> None:
        #: When the pushes began to fail, on :func:`time.monotonic`'s clock.
        self._since: float | None = None

    def begin(self, text: str, *arguments: object) -> None:
        """Log a failure: a warning if it is the first one."""
        is_first = self._since is None
        if is_first:
            self._since = time.monotonic()
        (logger.warning if is_first else logger.debug)(text, *arguments)

    def end(self) -> None:
        """Log that pushing works again, if it did not."""
        since, self._since = self._since, None
        if since is not None:
            seconds = time.monotonic() - since
            logger.info("The metrics are pushed again after %.0f s", seconds)


def _stop_all() -> None:
    for pusher in list(_all):
        pusher.stop()


atexit.register(_stop_all)
