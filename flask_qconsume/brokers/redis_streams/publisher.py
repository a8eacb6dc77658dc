"""Publishes messages into streams."""

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
    """Puts messages into Redis Streams, and delayed messages into sorted sets."""

    def _create_call(
        self, message: Outgoing, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        stream_layout: StreamLayout = self._shared.layout
        entry = encode_entry(
            basic_properties.encode_outgoing(message),
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
        )
        if message.delay > 0:
            return self._create_delayed_call(message, entry, queues)
        keys = [
            stream_layout.stream_key(
                queue, stream_layout.priority_step(queue, message.priority)
            )
            for queue in queues
        ]
        fields = (stream_layout.body, entry.body, META, entry.meta)
        return scripts.PUBLISH(keys, "", *fields), False

    def _create_delayed_call(
        self, message: Outgoing, entry: Entry, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        stream_layout: StreamLayout = self._shared.layout
        steps = [
            stream_layout.priority_step(queue, message.priority) for queue in queues
        ]
        keys = [stream_layout.delayed_key(queue) for queue in queues]
        copies = [entry.pack(step) for step in steps]
        needs_wake = message.delay < POLL_INTERVAL
        return scripts.PUBLISH(keys, message.delay, *copies), needs_wake

    def _key_of(self, queue: str) -> str:
        return str(self._shared.layout.stream_key(queue))
