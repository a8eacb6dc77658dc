"""The broker for ``redis://``: queues as kombu's Redis lists."""

from __future__ import annotations

import dataclasses
import typing as t

from ...broker.base import DeadLetters
from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.headers import find_oldest_suspect
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...settings import Settings
from ..redis.broker import KeyTypes
from ..redis.broker import RedisBroker
from ..redis.server import Server
from ..redis.shared import Shared
from . import envelope
from .capabilities import CAPABILITIES
from .dead_letters import ListDeadLetters
from .keys import ListLayout
from .keys import create_layout
from .link import ListLink
from .publisher import ListPublisher


class RedisLists(RedisBroker[ListLayout]):
    """A broker whose queues are Redis lists, in the layout of kombu's transport."""

    capabilities = CAPABILITIES
    link: t.ClassVar[type[ListLink]] = ListLink
    publisher = ListPublisher

    def __init__(self, settings: Settings, topology: Topology) -> None:
        layout = create_layout(settings.transport_options)
        super().__init__(settings, topology, Shared(settings, layout, Server(settings)))

    def depth(self, queue: str) -> int:
        lists = self._shared.layout.list_keys(queue)
        counts = self._shared.server.send_commands([("LLEN", key) for key in lists])
        return sum(counts)

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        lists = self._shared.layout.list_keys(plan.suspects)
        heads = self._shared.server.send_commands(
            [("LINDEX", key, -1) for key in lists]
        )
        return SuspectsStatus(
            self.depth(plan.suspects),
            find_oldest_suspect(
                envelope.read_element(head, plan.suspects)
                for head in heads
                if isinstance(head, bytes)
            ),
        )

    def _read_status(self, plan: QueuePlan) -> QueueStatus:
        layout = self._shared.layout
        sets = (
            layout.delayed_key(plan.name),
            *map(layout.leases_key, plan.handled_queues),
        )
        counts = self._shared.server.send_commands([("ZCARD", key) for key in sets])
        return dataclasses.replace(
            super()._read_status(plan), delayed=counts[0], in_hand=sum(counts[1:])
        )

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return ListDeadLetters(plan, self._shared)

    def _list_key_types(self) -> KeyTypes:
        base = self._shared.layout.queue_key
        for plan in self.topology.queues:
            yield base(plan.name), "list"
            yield base(plan.suspects), "list"
            yield base(plan.dead), "zset"
