"""Ask the broker every few seconds for the numbers of messages, for the metrics.

Only one process of a host asks: the one that holds a lock in the folder of the metrics.
When it ends or is killed, another one takes over.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
import typing as t

import gevent

from ..appconsumers import AppConsumers
from ..errors import BrokerError
from ..logs import get_logger
from ..observing.host_lock import HostLock
from ..observing.metrics import Metrics
from ..observing.queue_gauges import make_queue_gauges
from ..observing.series import Series
from ..text import escape
from .event import Event
from .greenlets import ProtectedGreenlet

logger = get_logger("flask_qconsume.backlog")

#: Seconds from one reading to the next: at least, and as a multiple of the seconds that
#: the reading took, but not longer than the last.
_INTERVAL_SECONDS = 5.0
_INTERVAL_FACTOR = 10
_LONGEST_INTERVAL_SECONDS = 20.0

#: Seconds that one answer of the broker may take.
_ANSWER_SECONDS = 5.0


class Reading(t.NamedTuple):
    """The gauges of all queues at one time."""

    #: The time on :func:`time.monotonic`'s clock.
    at: float
    gauges: list[Series]


class BacklogPoller:
    """Reads the gauges of all queues of an app, in a greenlet of its own.

    :param interval: Seconds between two readings, if the broker answers soon.
    """

    def __init__(
        self,
        consumers: AppConsumers,
        metrics: Metrics,
        interval: float = _INTERVAL_SECONDS,
    ) -> None:
        #: The latest reading, which any thread may use; ``None`` if another process of
        #: the host reads.
        self.latest: Reading | None = None
        self._consumers = consumers
        self._interval = interval
        self._lock: HostLock | None = None
        if metrics.folder is not None:
            self._lock = HostLock(pathlib.Path(metrics.folder) / "backlog.lock")
            metrics.on_fork(self._lock.release)
        #: When the readings began to fail, on :func:`time.monotonic`'s clock.
        self._failing_since: float | None = None
        self._over = Event()
        self._greenlet: ProtectedGreenlet | None = None

    def start(self) -> None:
        """Start to read, in the background."""
        self._greenlet = ProtectedGreenlet.spawn(self._run)

    def stop(self) -> None:
        """End, without waiting for an answer of the broker."""
        # A client may turn the exception that ends the greenlet into an error of its
        # own: redis-py does.
        self._over.set()
        if self._greenlet is not None:
            self._greenlet.end(block=False)
        if self._lock is not None:
            self._lock.release()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self._read_if_holder()
            except gevent.GreenletExit:
                return  # Raised, its traceback would keep Kafka's client from closing.
            except BaseException:
                logger.exception("Counting messages was cut off; it goes on.")
            took = _INTERVAL_FACTOR * (time.monotonic() - began)
            pause = min(max(self._interval, took), _LONGEST_INTERVAL_SECONDS)
            self._over.wait(pause)

    def _read_if_holder(self) -> None:
        if not self._is_holder():
            self.latest = None
            return
        try:
            self.latest = self._read()
        except Exception as error:
            if not self._over.is_set():
                self._log_failure(error)
        else:
            self._log_recovery()

    def _is_holder(self) -> bool:
        if self._lock is None:
            return True
        # Without a folder that it can use, each process shows only its own metrics.
        with contextlib.suppress(OSError):
            return self._lock.acquire()
        return True

    def _read(self) -> Reading:
        broker, topology = self._consumers.broker, self._consumers.topology
        consumers = list(self._consumers.consumers.values())
        plans = [topology.queue(consumer.queue) for consumer in consumers]
        statuses = broker.read_backlog(plans, _ANSWER_SECONDS)
        now = time.time()
        gauges = [
            gauge
            for consumer, plan, status in zip(consumers, plans, statuses, strict=True)
            for gauge in make_queue_gauges(
                consumer.name,
                plan.name,
                status,
                dates_waiting=broker.capabilities.dates_waiting,
                read_at=now,
            )
        ]
        return Reading(time.monotonic(), gauges)

    def _log_failure(self, error: Exception) -> None:
        """Log the first failure of an outage; the next ones only for debugging."""
        is_first = self._failing_since is None
        if is_first:
            self._failing_since = time.monotonic()
        (logger.warning if is_first else logger.debug)(
            "Cannot count the messages of the queues. Their metrics are missing until"
            " the broker answers: %s",
            escape(error),
            exc_info=error if is_first and not isinstance(error, BrokerError) else None,
        )

    def _log_recovery(self) -> None:
        since, self._failing_since = self._failing_since, None
        if since is not None:
            seconds = time.monotonic() - since
            logger.info("The messages are counted again after %.0f s", seconds)
