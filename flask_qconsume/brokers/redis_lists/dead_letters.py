"""Dead letters of a queue in kombu's list layout."""

from __future__ import annotations

import time

from ...broker import headers as own_headers
from ...broker import properties as basic_properties
from ...broker.topology import QueuePlan
from ...message import Message
from ..redis.dead_letters import SortedSetDeadLetters
from ..redis.shared import Shared
from . import envelope
from . import scripts
from .keys import ListLayout


class ListDeadLetters(SortedSetDeadLetters):
    """Dead letters as kombu's JSON envelopes in the sorted set ``<queue>.dead``."""

    def __init__(self, plan: QueuePlan, shared: Shared[ListLayout]) -> None:
        super().__init__(plan, shared, shared.layout.queue_key(plan.dead))

    def _decode(self, element: bytes) -> tuple[Message, str]:
        message = envelope.read_element(element, self._plan.name)
        return message, envelope.read_reference(element)

    def _take(self, message: Message, element: bytes, replay: bool) -> int:
        list_layout, queue = self._shared.layout, self._plan.name
        step = list_layout.priority_step(envelope.to_kombu_priority(message.priority))
        keys = [self._key, list_layout.list_key(queue, step)]
        copy = self._create_replay(message) if replay else b""
        has_taken = self._shared.server.call(
            scripts.TAKE_DEAD_LETTER(keys, element, copy)
        )
        if has_taken and replay and step:
            self._shared.wake([queue])
        return int(has_taken)

    def _create_replay(self, message: Message) -> bytes:
        headers = own_headers.make_replay_headers(message.headers)
        return envelope.encode_envelope(
            basic_properties.encode_copy(message, headers),
            message.raw,
            exchange="",
            routing_key=self._plan.name,
            ready_at=time.time(),
        )
