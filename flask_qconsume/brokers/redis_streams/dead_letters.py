"""Dead letters of a queue in Redis Streams."""

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
    """The dead letters of one queue, in the sorted set ``{<queue>}.dead``."""

    def __init__(self, plan: QueuePlan, shared: Shared[StreamLayout]) -> None:
        super().__init__(plan, shared, shared.layout.dead_key(plan.dead))

    def _decode(self, element: bytes) -> tuple[Message, str]:
        return entries.unpack_member(element, self._plan.name)

    def _take(self, message: Message, element: bytes, replay: bool) -> int:
        stream_layout: StreamLayout = self._shared.layout
        queue = self._plan.name
        stream = stream_layout.stream_key(
            queue, stream_layout.priority_step(queue, message.priority)
        )
        copy = self._create_replay(message) if replay else ()
        call = scripts.TAKE_DEAD_LETTER([self._key, stream], element, *copy)
        return int(self._shared.server.call(call))

    def _create_replay(self, message: Message) -> tuple[str | bytes, ...]:
        headers = own_headers.make_replay_headers(message.headers)
        entry = entries.encode_entry(
            basic_properties.encode_copy(message, headers),
            message.raw,
            exchange="",
            routing_key=self._plan.name,
        )
        return (self._shared.layout.body, entry.body, META, entry.meta)
