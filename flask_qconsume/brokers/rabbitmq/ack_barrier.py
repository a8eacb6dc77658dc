"""A barrier behind acknowledgements: once it is passed, they have taken effect.

A channel of RabbitMQ hands at most 32 settlements at once to a quorum queue and keeps
the rest until these are on disk. If the channel is closed meanwhile it forgets the
rest, and the messages are delivered again: of 100 messages that were acknowledged one
by one right before the close, up to 26 came back. AMQP does not confirm
acknowledgements; but requests to start and to cancel a consumer take the same way, and
are answered once the acknowledgements before them are on disk. The consumer has no
credit, so it receives no message.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

from .amqp import frames

_CONSUMER_TAG = "qconsume.barrier"


class BarrierRequest(t.NamedTuple):
    """The frame of a request, and a function that tells whether it was answered."""

    frame: bytes
    is_answered: t.Callable[[], bool]


def barrier_requests(channel: t.Any, queue: str) -> Iterator[BarrierRequest]:
    """Yield two requests that RabbitMQ answers once acknowledgements are stored.

    The caller awaits the first answer before it sends the second request: otherwise
    RabbitMQ's channel crashes.
    """
    number = channel.channel_id
    channel.started_consumers.discard(_CONSUMER_TAG)
    channel.ended_consumers.discard(_CONSUMER_TAG)
    start = frames.build_idle_consume(number, queue, _CONSUMER_TAG)
    yield BarrierRequest(start, lambda: _CONSUMER_TAG in channel.started_consumers)
    end = frames.build_cancel(number, _CONSUMER_TAG, nowait=False)
    yield BarrierRequest(end, lambda: _CONSUMER_TAG in channel.ended_consumers)


def await_acks(channel: t.Any, queue: str) -> None:
    """Wait until RabbitMQ has stored all acknowledgements of a channel.

    No other thread may read the connection meanwhile.
    """
    for request in barrier_requests(channel, queue):
        channel.connection.write(request.frame)
        while not request.is_answered():
            channel.connection.drain_events()
