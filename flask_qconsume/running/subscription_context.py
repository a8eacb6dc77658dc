"""Objects shared by the subscriptions of a worker, or by the parts of one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from dataclasses import field

from flask import Flask

from ..broker.base import Broker
from ..broker.link import Lane
from ..broker.topology import QueuePlan
from ..handling.events import Events
from ..registration.consumer import Consumer
from ..settings import Settings
from .event import Event
from .fair_share import FairShare
from .outage_log import OutageLog
from .reconnect import BrokerProbe


@dataclass(frozen=True)
class WorkerContext:
    """The objects that all subscriptions of one worker share."""

    app: Flask
    broker: Broker
    settings: Settings
    events: Events
    #: Set as soon as the worker is asked to stop.
    stopping: Event
    probe: BrokerProbe
    outages: OutageLog
    #: Decides when messages may be begun beside a web server; ``None``: at any time.
    fair_share: FairShare | None


@dataclass(frozen=True)
class SubscriptionContext:
    """The objects that the parts of one subscription share."""

    worker: WorkerContext
    consumer: Consumer
    plan: QueuePlan
    lane: Lane
    #: How many messages had each outcome, by the outcome's name.
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The consumer's name, followed by ``(suspects)`` for its queue of suspects."""
        suffix = " (suspects)" if self.lane is Lane.SUSPECTS else ""
        return self.consumer.name + suffix

    @property
    def queue(self) -> str:
        """The queue that is read: the consumer's queue, or its queue of suspects."""
        return self.lane.queue_of(self.plan)

    @property
    def concurrency(self) -> int:
        """Number of messages handled at once; 1 in the queue of suspects."""
        return 1 if self.lane is Lane.SUSPECTS else self.consumer.concurrency

    @property
    def prefetch(self) -> int:
        """The largest number of unsettled messages on the connection."""
        return 1 if self.lane is Lane.SUSPECTS else self.consumer.prefetch
