"""Redis as an app's broker: puts the parts together, and says what they can do."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

from ...settings import Settings
from ..base import DeadLetters
from ..base import Link
from ..capabilities import Capabilities
from ..delivery import Lane
from ..topology import QueuePlan
from ..topology import Topology
from .base import LONGEST_DELAY
from .base import RedisBroker
from .dead_letters import RedisDeadLetters
from .layout import Layout
from .layout import layout_of
from .link import RedisLink
from .publisher import ListPublisher
from .server import Server
from .shared import Shared


class RedisLists(RedisBroker[Layout]):
    """kombu's list transport, read and settled by scripts of our own."""

    capabilities: t.ClassVar[Capabilities] = Capabilities(
        broker="Redis",
        shared=True,
        survives_worker_death=True,
        durable=True,
        priorities=True,
        max_delay=LONGEST_DELAY,
        delays=(
            "A sorted set per queue, moved to the queue by its workers when due; late"
            " by some 0.1 s, a delay below 1 s published by another process by up to"
            " 1 s. Held back for longer while no worker of the queue runs."
        ),
        dead_letters=(
            "A sorted set per queue, '<queue>.dead', by the time they are kept to."
            " Put there, and taken from the queue, in one step."
        ),
        counts_deaths=(
            "A message whose worker is not heard of for QCONSUME_LEASE goes back to"
            " its queue, marked as redelivered: from then on it is a suspect. A clean"
            " stop and a lost connection mark nothing."
        ),
        confirms=(
            "Redis has answered: the message is in all of its queues, in the server's"
            " memory; on disk or on a replica only as the server is set up."
        ),
        unroutable=(
            "By our look-up of kombu's bindings, at most 1 s old. A queue addressed by"
            " its name through the default exchange always counts as there."
        ),
        guarantee=(
            "At least once, as long as the server keeps its data: without an"
            " append-only file with 'appendfsync always' a crash of Redis loses the"
            " latest messages, or all; a failover loses what was not replicated yet;"
            " 'maxmemory' must not evict ('noeviction'). Messages that nobody reads"
            " expire only when they are read. A kombu or Celery worker that reads the"
            " same queue takes messages out before it notes them: killed in between,"
            " it loses them, and its visibility timeout must be longer than"
            " QCONSUME_LEASE."
        ),
    )

    publisher = ListPublisher

    def __init__(self, settings: Settings, topology: Topology) -> None:
        layout = layout_of(settings.transport_options)
        super().__init__(settings, topology, Shared(settings, layout, Server(settings)))

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        return RedisLink(plan, lane, self._shared)

    def depth(self, queue: str) -> int:
        lists = self._shared.layout.lists(queue)
        counts = self._shared.server.commands([("LLEN", key) for key in lists])
        return sum(counts)

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return RedisDeadLetters(plan, self._shared)

    def _kinds(self) -> Iterator[tuple[str, str]]:
        base = self._shared.layout.base
        for plan in self.topology.queues:
            yield base(plan.name), "list"
            yield base(plan.suspects), "list"
            yield base(plan.dead), "zset"
