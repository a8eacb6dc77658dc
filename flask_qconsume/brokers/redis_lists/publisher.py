"""Publishes messages into kombu's lists."""

from __future__ import annotations

import time

from ...broker import properties as basic_properties
from ...message import Outgoing
from ..redis.blocked_readers import POLL_INTERVAL
from ..redis.publisher import Publisher
from ..redis.scripts import Call
from . import envelope
from . import scripts
from .keys import ListLayout


class ListPublisher(Publisher):
    """Puts messages into kombu's lists, and delayed messages into sorted sets."""

    def _create_call(
        self, message: Outgoing, queues: tuple[str, ...]
    ) -> tuple[Call, bool]:
        list_layout: ListLayout = self._shared.layout
        step = list_layout.priority_step(envelope.to_kombu_priority(message.priority))
        # Each queue gets an envelope with its own delivery tag: two kombu consumers
        # that hold the same tag take each other's message away.
        copies = [self._encode(message) for _ in queues]
        if message.delay > 0:
            keys = [list_layout.delayed_key(queue) for queue in queues]
            copies = [envelope.encode_delayed(copy, step) for copy in copies]
            call = scripts.PUBLISH(keys, message.delay, *copies)
        else:
            keys = [list_layout.list_key(queue, step) for queue in queues]
            call = scripts.PUBLISH(keys, "", *copies)
        # A blocked reader waits at the list of step 0 only.
        needs_wake = step != 0 or 0 < message.delay < POLL_INTERVAL
        return call, needs_wake

    def _encode(self, message: Outgoing) -> bytes:
        return envelope.encode_envelope(
            basic_properties.encode_outgoing(message),
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            ready_at=time.time() + message.delay if message.delay > 0 else None,
        )
