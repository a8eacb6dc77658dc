"""How many messages are ready in a queue."""

from __future__ import annotations

import typing as t

from amqp.exceptions import NotFound

from ...errors import TopologyMismatch
from .refusals import is_refused_as


def depth(channel: t.Any, queue: str) -> int:
    """How many messages wait in a queue; 0 if there is none of that name."""
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except NotFound as error:
        if is_refused_as(error, TopologyMismatch):
            return 0
        raise
