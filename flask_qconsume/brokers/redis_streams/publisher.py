"""Publishing into streams: how a message is put there."""

from __future__ import annotations

from ...broker import properties as basic_properties
from ...message import Outgoing
from ..redis.blocked_readers import EVERY
from ..redis.publisher import Publisher
from ..redis.scripts import Call
from . import scripts
from .envelope import META
from .envelope import Entry
from .envelope import sealed
from .keys import Layout


class StreamPublisher(Publisher):
    """Adds entries to streams, or holds them back in sorted sets."""

    def _addressed(
        self, message: Outgoing, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        layout: Layout = self._shared.layout
        entry = sealed(
            basic_properties.encode_outgoing(message),
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
        )
        if message.delay > 0:
            return self._delayed(message, entry, queues)
        keys = [
            layout.stream(queue, layout.step(queue, message.priority))
            for queue in queues
        ]
        fields = (layout.body, entry.body, META, entry.meta)
        return scripts.PUBLISH(keys, "", *fields), False

    def _delayed(
        self, message: Outgoing, entry: Entry, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        layout: Layout = self._shared.layout
        copies = [entry.packed(layout.step(q, message.priority)) for q in queues]
        keys = [layout.delayed(queue) for queue in queues]
        return scripts.PUBLISH(keys, message.delay, *copies), message.delay < EVERY

    def _key(self, queue: str) -> str:
        return str(self._shared.layout.stream(queue))
