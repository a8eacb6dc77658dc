"""The broker for ``redis://``: queues as kombu's Redis lists."""

from __future__ import annotations

import typing as t

from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.base import find_oldest
from ...broker.dead_letters import DeadLetters
from ...broker.headers import find_oldest_suspect
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...settings import Settings
from ..redis.broker import KeyTypes
from ..redis.broker import RedisBroker
from ..redis.scripts import Call
from ..redis.server import Server
from ..redis.shared import Shared
from . import envelope
from . import scripts
from .capabilities import CAPABILITIES
from .dead_letters import ListDeadLetters
from .keys import ListLayout
from .keys import create_layout
from .link import ListLink
from .publisher import ListPublisher

#: A suspect is decoded to learn its age, which takes long if it is larger.
_MAX_SUSPECT_BYTES = 1024 * 1024


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

    def _create_status_call(self, plan: QueuePlan) -> Call:
        layout = self._shared.layout
        lists = layout.list_keys(plan.name)
        keys = [
            layout.delayed_key(plan.name),
            layout.dead_key(plan.dead),
            *map(layout.leases_key, plan.handled_queues),
            *lists,
            *layout.list_keys(plan.suspects),
        ]
        return scripts.READ_STATUS(keys, len(lists), _MAX_SUSPECT_BYTES)

    def _decode_status(self, plan: QueuePlan, answer: t.Any) -> QueueStatus:
        (waiting, delayed, in_hand, suspects, dead), due, ends, heads = answer
        ready = [envelope.read_ready_time(end) for end in ends]
        ready += [float(due)] if due else []
        since = find_oldest_suspect(
            envelope.read_element(head, plan.suspects) for head in heads
        )
        return QueueStatus(
            waiting=waiting,
            delayed=delayed,
            in_hand=in_hand,
            suspects=SuspectsStatus(suspects, since),
            dead_letters=dead,
            oldest=find_oldest(ready),
        )

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return ListDeadLetters(plan, self._shared)

    def _list_key_types(self) -> KeyTypes:
        base = self._shared.layout.queue_key
        for plan in self.topology.queues:
            yield base(plan.name), "list"
            yield base(plan.suspects), "list"
            yield base(plan.dead), "zset"
