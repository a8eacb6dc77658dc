"""Facts about a worker and its subscriptions at one moment, to be judged.

The objects are immutable: a greenlet creates them, and a native thread reads them.
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
    #: False if a greenlet that the subscription needs has ended.
    tended: bool
    #: The time limit of its handlers, in seconds.
    timeout: float
    #: How many handlers have far exceeded their time limit.
    overdue: int
    concurrency: int
    #: How many handled messages are being settled, and for how long the oldest of them.
    unsettled: int
    unsettled_for: float
    #: Whether the broker refused to take a forwarded message, which is retried later.
    retries_forwards: bool
    #: Whether dead letters wait elsewhere, since the dead-letter queue refused them.
    parks: bool
    #: For how long a message that was read has waited although a handler is free.
    stuck_for: float
    #: For how long messages have waited in the queue while none was read.
    starved_for: float
    #: How many messages wait in the queue.
    backlog: int
    #: Only for a queue of suspects.
    suspects: SuspectBacklog | None = None


@dataclass(frozen=True)
class WorkerFacts:
    """Facts about a worker; durations are in seconds."""

    #: For how long one greenlet has let no other run, and the code that it is in.
    blocked_for: float
    blocked_at: str
    started: bool
    stopping: bool
    subscriptions: Sequence[SubscriptionFacts]
    #: For how long messages have been begun at the slowest pace beside a web server,
    #: and the latency of gevent's event loop.
    slowed_for: float = 0.0
    hub_latency: float = 0.0
    #: For how long the worker has been starting.
    starting_for: float = 0.0
    #: For how long a log handler has not returned.
    logging_for: float = 0.0


class HealthLimits(t.NamedTuple):
    """For each condition, the seconds that it must last to count as a problem."""

    blocked: float
    stalled: float
    starting: float
