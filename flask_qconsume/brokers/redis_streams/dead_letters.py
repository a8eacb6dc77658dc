"""The dead letters of one queue: a sorted set of packed entries, by their end."""

from __future__ import annotations

from ...broker import headers as own_headers
from ...broker import properties as basic_properties
from ...broker.topology import QueuePlan
from ...message import Message
from ..redis.dead_letters import KeptElements
from ..redis.shared import Shared
from . import envelope
from . import scripts
from .envelope import META
from .keys import Layout


class StreamDeadLetters(KeptElements):
    """What lies in ``{<queue>}.dead`` and is still to be kept."""

    def __init__(self, plan: QueuePlan, shared: Shared[Layout]) -> None:
        super().__init__(plan, shared, shared.layout.dead(plan.dead))

    def _opened(self, element: bytes) -> tuple[Message, str]:
        return envelope.unpacked(element, self._plan.name)

    def _take(self, message: Message, element: bytes, replay: bool) -> int:
        layout: Layout = self._shared.layout
        queue = self._plan.name
        stream = layout.stream(queue, layout.step(queue, message.priority))
        copy = self._replayed(message) if replay else ()
        call = scripts.TAKE([self._key, stream], element, *copy)
        return int(self._shared.server.call(call))

    def _replayed(self, message: Message) -> tuple[str | bytes, ...]:
        headers = own_headers.make_replay_headers(message.headers)
        entry = envelope.sealed(
            basic_properties.encode_copy(message, headers),
            message.raw,
            exchange="",
            routing_key=self._plan.name,
        )
        return (self._shared.layout.body, entry.body, META, entry.meta)
