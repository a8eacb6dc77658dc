"""The broker for ``redis-streams://``: queues as Redis Streams.

The URL is that of Redis with ``-streams`` behind the scheme: ``redis-streams://``,
``rediss-streams://`` (TLS), ``redis-streams+socket://``, ``sentinel-streams://`` and
``redis-streams+cluster://``, where several nodes are separated by commas.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t
from collections.abc import Sequence

from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.base import find_oldest
from ...broker.dead_letters import DeadLetters
from ...broker.headers import find_oldest_suspect
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...errors import RegistrationError
from ...settings import Settings
from ...text import quote
from ..redis.broker import KeyTypes
from ..redis.broker import RedisBroker
from ..redis.scripts import Call
from ..redis.server import Server
from ..redis.shared import Shared
from . import entries
from . import scripts
from .capabilities import CAPABILITIES
from .cluster import Cluster
from .dead_letters import StreamDeadLetters
from .keys import COMPANION_SUFFIXES
from .keys import StreamLayout
from .keys import create_layout
from .link import StreamLink
from .publisher import StreamPublisher

_SCHEME = re.compile(r"(^|;)(rediss?|sentinel)-streams(?=[+:])")
_CLUSTER = re.compile(r"rediss?\+cluster:")

#: A suspect is decoded to learn its age, which takes long if it is larger.
_MAX_SUSPECT_BYTES = 1024 * 1024


class RedisStreams(RedisBroker[StreamLayout]):
    """A broker whose queues are Redis Streams, one for each priority step."""

    capabilities = CAPABILITIES
    link: t.ClassVar[type[StreamLink]] = StreamLink
    publisher = StreamPublisher

    def __init__(self, settings: Settings, topology: Topology) -> None:
        layout = create_layout(settings.transport_options)
        server = create_server(settings)
        super().__init__(settings, topology, Shared(settings, layout, server))

    def check_names(self) -> None:
        for plan in self.topology.queues:
            if plan.name.endswith(COMPANION_SUFFIXES):
                raise RegistrationError(
                    f"The queue {quote(plan.name)} of the consumer"
                    f" {quote(plan.consumer)} ends like those beside another queue"
                    f" ({' and '.join(COMPANION_SUFFIXES)}), which have streams of"
                    " their own on Redis Streams. Give the queue another name. Dead"
                    " letters are listed and replayed by 'flask qconsume dead-letters'."
                )
        super().check_names()

    def depth(self, queue: str) -> int:
        layout = self._shared.layout
        call = scripts.COUNT_ENTRIES(layout.stream_keys(queue), layout.group)
        return int(self._shared.server.call(call))

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        layout = self._shared.layout
        call = scripts.FIND_OLDEST(layout.stream_keys(plan.suspects), layout.group)
        since = self._find_oldest_suspect(plan, self._shared.server.call(call))
        return SuspectsStatus(self.depth(plan.suspects), since)

    def _create_status_call(self, plan: QueuePlan) -> Call:
        layout = self._shared.layout
        keys = [
            layout.delayed_key(plan.name),
            layout.dead_key(plan.dead),
            *layout.stream_keys(plan.suspects),
            *layout.stream_keys(plan.name),
        ]
        return scripts.READ_STATUS(keys, layout.group, _MAX_SUSPECT_BYTES)

    def _decode_status(self, plan: QueuePlan, answer: t.Any) -> QueueStatus:
        (waiting, delayed, in_hand, suspects, dead), due, ids, fields = answer
        ready = [entries.read_time(id) for id in ids]
        ready += [float(due)] if due else []
        since = self._find_oldest_suspect(plan, fields)
        return QueueStatus(
            waiting=waiting,
            delayed=delayed,
            in_hand=in_hand,
            suspects=SuspectsStatus(suspects, since),
            dead_letters=dead,
            oldest=find_oldest(ready),
        )

    def _find_oldest_suspect(
        self, plan: QueuePlan, fields: Sequence[bytes]
    ) -> float | None:
        """Return since when the entry with these fields has been a suspect."""
        body = self._shared.layout.body
        found = [entries.read_entry(fields, plan.suspects, body)] if fields else []
        return find_oldest_suspect(found)

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return StreamDeadLetters(plan, self._shared)

    def _list_key_types(self) -> KeyTypes:
        layout = self._shared.layout
        for plan in self.topology.queues:
            for name in (plan.name, plan.suspects):
                yield from ((stream, "stream") for stream in layout.stream_keys(name))
            yield layout.delayed_key(plan.name), "zset"
            yield layout.dead_key(plan.dead), "zset"


def create_server(settings: Settings) -> Server:
    """Create a :class:`Server` or, for a URL of a cluster, a :class:`Cluster`."""
    url = to_plain_url(settings.broker_url)
    kind = Cluster if _CLUSTER.match(url) else Server
    return kind(dataclasses.replace(settings, broker_url=url))


def to_plain_url(url: str) -> str:
    """Return the URL as kombu understands it, with ``redis`` as its scheme."""
    return _SCHEME.sub(r"\1\2", url)
