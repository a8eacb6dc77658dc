"""The dead letters of one queue: a sorted set of packed entries, by their end."""

from __future__ import annotations

from ...broker import headers as own_headers
from ...broker import properties as basic_properties
from ...broker.topology import QueuePlan
from ...message import Message
from ..redis.dead_letters import SortedSetDeadLetters
from ..redis.shared import Shared
from . import entries
from . import scripts
from .entries import META
from .keys import StreamLayout


class StreamDeadLetters(SortedSetDeadLetters):
    """What lies in ``{<queue>}.dead`` and is still to be kept."""

    def __init__(self, plan: QueuePlan, shared: Shared[StreamLayout]) -> None:
        super().__init__(plan, shared, shared.layout.dead_key(plan.dead))

    def _opened(self, element: bytes) -> tuple[Message, str]:
        return entries.unpack_member(element, self._plan.name)

    def _take(self, message: Message, element: bytes, replay: bool) -> int:
        layout: StreamLayout = self._shared.layout
        queue = self._plan.name
        stream = layout.stream_key(queue, layout.priority_step(queue, message.priority))
        copy = self._replayed(message) if replay else ()
        call = scripts.TAKE([self._key, stream], element, *copy)
        return int(self._shared.server.call(call))

    def _replayed(self, message: Message) -> tuple[str | bytes, ...]:
        headers = own_headers.make_replay_headers(message.headers)
        entry = entries.encode_entry(
            basic_properties.encode_copy(message, headers),
            message.raw,
            exchange="",
            routing_key=self._plan.name,
        )
        return (self._shared.layout.body, entry.body, META, entry.meta)
