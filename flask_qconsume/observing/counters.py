"""The listener that counts what an app consumes and publishes in this process.

Every message comes through here, so its methods do little, and call nothing that could
wait.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Sequence

from ..handling.context import Handling
from ..handling.events import Ending
from ..handling.events import Listener
from ..handling.result import Result
from ..message import Message
from ..message import Outgoing
from ..outcomes import Ack
from ..outcomes import Reject
from ..outcomes import Retry
from ..registration.consumer import Consumer
from .consumer_counters import ConsumerCounters
from .error_names import ErrorNames
from .metric_table import DEAD_LETTERS
from .metric_table import FAILURES
from .metric_table import RECONNECTS
from .metric_table import STALE_SETTLEMENTS
from .metric_table import SUSPECTS
from .metrics import Metrics
from .publisher_counters import PublisherCounters


class Counters(Listener):
    """Counts what one app consumes and publishes in this process.

    An acknowledged attempt is only noted when its outcome is known, and added to the
    numbers with many more of them, just before their settlement is sent. So a process
    that is killed loses the counts of messages that the broker delivers again.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        metrics.on_fork(self._forget)
        self._forget()

    def _forget(self) -> None:
        """Begin without numbers; a forked child has numbers of its own."""
        self._consumers: dict[str, ConsumerCounters] = {}
        self._publisher: PublisherCounters | None = None
        self._errors = ErrorNames()
        #: Subscriptions that have been connected.
        self._connected: set[str] = set()
        self._lock = threading.Lock()

    # -- consuming --------------------------------------------------------------------

    def worker_started(self, worker: t.Any) -> None:
        """Begin with zeros, so that rates are known from the first message on."""
        self._get_publisher()
        for name in worker.names:
            self._get_consumer(name)

    def worker_stopped(self, worker: t.Any, clean: bool) -> None:
        """Add up what is noted."""
        for mine in self._consumers.values():
            mine.add_up()

    def decided(
        self, consumer: Consumer, message: Message, result: Result, seconds: float
    ) -> None:
        """Note an attempt and its times."""
        name = consumer.name
        mine = self._consumers.get(name) or self._get_consumer(name)
        outcome = result.outcome
        kind = outcome.__class__
        if kind is not Ack:
            mine.add_up()
        mine.handling.append(seconds)
        published = message.timestamp
        if published is not None:
            age = time.time() - published
            if message.attempt == 1:
                mine.waiting.append(age - seconds)
            if kind is not Retry:
                mine.ages.append(age)
        if kind is not Ack:
            mine.add_up(outcome)
            if isinstance(outcome, Reject):
                cls = Reject if result.error is None else type(result.error)
                mine.count_error(DEAD_LETTERS, self._errors.limit(cls.__name__))

    def failed(self, handling: Handling, result: Result) -> None:
        """Count an error."""
        error = type(result.error).__name__
        mine = self._get_consumer(handling.consumer.name)
        mine.count_error(FAILURES, self._errors.limit(error))

    def suspected(
        self, consumer: Consumer, message: Message, rejected: Reject | None
    ) -> None:
        """Count a suspect, or its end as a dead letter."""
        mine = self._get_consumer(consumer.name)
        if rejected is not None:
            mine.count_error(DEAD_LETTERS, "Crash")
        else:
            mine.count(SUSPECTS)

    def settling(
        self, consumer: Consumer, action: str, messages: Sequence[Message]
    ) -> Ending:
        """Add up what is noted; count the settlements that will have failed."""
        name = consumer.name
        mine = self._consumers.get(name) or self._get_consumer(name)
        mine.add_up()
        return mine.count_settlement_errors

    def lost(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        """Count handled messages that can no longer be settled."""
        mine = self._get_consumer(consumer.name)
        mine.add_up()
        mine.count(STALE_SETTLEMENTS, len(messages))

    def connected(self, subscription: str, queue: str) -> None:
        """Count connections of a subscription after its first one."""
        if subscription in self._connected:
            consumer = subscription.removesuffix(" (suspects)")
            self._get_consumer(consumer).count(RECONNECTS)
        self._connected.add(subscription)

    # -- publishing -------------------------------------------------------------------

    def publishing(self, messages: Sequence[Outgoing]) -> Ending:
        """Measure the time until the confirmations."""
        mine = self._publisher or self._get_publisher()
        began = time.monotonic()

        def end(errors: Sequence[BaseException | None] | None) -> None:
            # Without a list, a stop or a time limit came before anything was sent.
            if errors is not None:
                mine.count(errors, time.monotonic() - began)

        return end

    # -- numbers ----------------------------------------------------------------------

    def _get_consumer(self, name: str) -> ConsumerCounters:
        with self._lock:
            if name not in self._consumers:
                self._consumers[name] = ConsumerCounters(self._metrics.values, name)
            return self._consumers[name]

    def _get_publisher(self) -> PublisherCounters:
        with self._lock:
            if self._publisher is None:
                self._publisher = PublisherCounters(self._metrics.values)
            return self._publisher
