"""Publishing into streams: how a message is put there."""

from __future__ import annotations

from ...broker import properties as basic_properties
from ...message import Outgoing
from ..redis.blocked_readers import POLL_INTERVAL
from ..redis.publisher import Publisher
from ..redis.scripts import Call
from . import scripts
from .entries import META
from .entries import Entry
from .entries import encode_entry
from .keys import StreamLayout


class StreamPublisher(Publisher):
    """Adds entries to streams, or holds them back in sorted sets."""

    def _addressed(
        self, message: Outgoing, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        layout: StreamLayout = self._shared.layout
        entry = encode_entry(
            basic_properties.encode_outgoing(message),
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
        )
        if message.delay > 0:
            return self._delayed(message, entry, queues)
        keys = [
            layout.stream_key(queue, layout.priority_step(queue, message.priority))
            for queue in queues
        ]
        fields = (layout.body, entry.body, META, entry.meta)
        return scripts.PUBLISH(keys, "", *fields), False

    def _delayed(
        self, message: Outgoing, entry: Entry, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        layout: StreamLayout = self._shared.layout
        copies = [entry.pack(layout.priority_step(q, message.priority)) for q in queues]
        keys = [layout.delayed_key(queue) for queue in queues]
        return scripts.PUBLISH(
            keys, message.delay, *copies
        ), message.delay < POLL_INTERVAL

    def _key(self, queue: str) -> str:
        return str(self._shared.layout.stream_key(queue))
