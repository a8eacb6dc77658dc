"""Facts about a worker and its subscriptions at one moment, to be judged.

Immutable, so that the hub can collect them and a native thread can judge them.
"""

from __future__ import annotations

import typing as t
from collections.abc import Sequence
from dataclasses import dataclass

from .verdict import SuspectBacklog


@dataclass(frozen=True)
class SubscriptionFacts:
    """Facts about one subscription; durations are in seconds."""

    name: str
    queue: str
    connected: bool
    #: Whether the greenlets that keep it running have not ended.
    tended: bool
    #: The time limit of its handlers, in seconds.
    timeout: float
    #: How many handlers have far exceeded that limit.
    overdue: int
    concurrency: int
    #: How many handled messages are being settled, and for how long the oldest has.
    unsettled: int
    unsettled_for: float
    #: Whether the broker refused to take a message, so that it is tried again later.
    retries_forwards: bool
    #: Whether its dead-letter queue refused dead letters, so that they wait elsewhere.
    parks: bool
    #: For how long a message that was read has waited although a handler is free.
    stuck_for: float
    #: For how long messages have waited in the queue while none was read.
    starved_for: float
    #: How many messages wait in the queue.
    backlog: int
    #: Only for a subscription of suspects.
    suspects: SuspectBacklog | None = None


@dataclass(frozen=True)
class WorkerFacts:
    """Facts about a worker; durations are in seconds."""

    #: For how long one greenlet has let no other run, and its place in the code.
    blocked_for: float
    blocked_at: str
    started: bool
    stopping: bool
    subscriptions: Sequence[SubscriptionFacts]
    #: For how long messages have been begun at the slowest pace, and how late the hub
    #: is.
    slowed_for: float = 0.0
    hub_latency: float = 0.0
    #: For how long it has been starting.
    starting_for: float = 0.0
    #: For how long a log handler has not returned.
    logging_for: float = 0.0


class HealthLimits(t.NamedTuple):
    """Seconds after which a condition counts as a problem."""

    blocked: float
    stalled: float
    starting: float
