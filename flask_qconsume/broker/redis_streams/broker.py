"""Redis Streams as an app's broker: puts the parts together, says what they can do.

The URL is that of Redis with ``-streams`` behind the scheme: ``redis-streams://``,
``rediss-streams://`` (TLS), ``redis-streams+socket://`` and ``sentinel-streams://``.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t
from collections.abc import Iterator

from ...settings import Settings
from ..base import DeadLetters
from ..base import Link
from ..capabilities import Capabilities
from ..delivery import Lane
from ..redis.base import LONGEST_DELAY
from ..redis.base import RedisBroker
from ..redis.server import Server
from ..redis.shared import Shared
from ..topology import QueuePlan
from ..topology import Topology
from . import scripts
from .dead_letters import StreamDeadLetters
from .layout import Layout
from .layout import layout_of
from .link import StreamLink
from .publisher import StreamPublisher

_SCHEME = re.compile(r"(^|;)(rediss?|sentinel)-streams(?=[+:])")


class RedisStreams(RedisBroker[Layout]):
    """A stream for each queue and priority, read by one consumer group."""

    capabilities: t.ClassVar[Capabilities] = Capabilities(
        broker="Redis Streams",
        shared=True,
        survives_worker_death=True,
        durable=True,
        priorities=True,
        max_delay=LONGEST_DELAY,
        delays=(
            "A sorted set per queue, moved to the stream by its workers when due; late"
            " by some 0.1 s, a delay below 1 s published by another process by up to"
            " 1 s. Held back for longer while no worker of the queue runs."
        ),
        dead_letters=(
            "A sorted set per queue, '{<queue>}.dead', by the time they are kept to."
            " Put there, and taken from the stream, in one step."
        ),
        counts_deaths=(
            "An entry whose worker is not heard of for QCONSUME_LEASE is taken from it"
            " and given out again, marked as redelivered: from then on it is a"
            " suspect. A clean stop and a lost connection mark nothing."
        ),
        confirms=(
            "Redis has answered: the message is in all of its streams, in the server's"
            " memory; on disk or on a replica only as the server is set up."
        ),
        unroutable=(
            "By our look-up of the bindings, at most 1 s old. A queue addressed by its"
            " name through the default exchange always counts as there."
        ),
        guarantee=(
            "At least once, as long as the server keeps its data: without an"
            " append-only file with 'appendfsync always' a crash of Redis loses the"
            " latest messages, or all; a failover loses what was not replicated yet;"
            " 'maxmemory' must not evict ('noeviction'). Nothing is trimmed that was"
            " not handled, and what was handled is deleted: a stream that other groups"
            " read too is not for this. Messages that nobody reads expire only when"
            " they are read. Redis 6.2 or later."
        ),
    )
    publisher = StreamPublisher

    def __init__(self, settings: Settings, topology: Topology) -> None:
        layout = layout_of(settings.transport_options)
        url = plain_url(settings.broker_url)
        server = Server(dataclasses.replace(settings, broker_url=url))
        super().__init__(settings, topology, Shared(settings, layout, server))

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        return StreamLink(plan, lane, self._shared)

    def depth(self, queue: str) -> int:
        layout = self._shared.layout
        call = scripts.DEPTH(layout.streams(queue), layout.group)
        return int(self._shared.server.call(call))

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return StreamDeadLetters(plan, self._shared)

    def _kinds(self) -> Iterator[tuple[str, str]]:
        layout = self._shared.layout
        for plan in self.topology.queues:
            for name in (plan.name, plan.suspects):
                yield from ((stream, "stream") for stream in layout.streams(name))
            yield layout.delayed(plan.name), "zset"
            yield layout.dead(plan.dead), "zset"


def plain_url(url: str) -> str:
    """The URL as it would be for lists, which says where the server is."""
    return _SCHEME.sub(r"\1\2", url)
