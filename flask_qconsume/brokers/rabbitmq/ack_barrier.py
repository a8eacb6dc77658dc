"""A barrier behind acknowledgements: once it is passed, they count.

A channel of RabbitMQ hands at most 32 settlements to a quorum queue at once and keeps
the others until those are on disk. When the channel is closed meanwhile it forgets what
it keeps, and the messages are delivered again: of 100 acknowledged one by one in the
last moment, up to 26 came back. AMQP has no confirmation for acknowledgements; but to
begin and to end a consumer are requests that go the same way and are answered when they
are on disk. The consumer is one without credit, so it is given no message.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

from .amqp import frames

_TAG = "qconsume.barrier"


class Step(t.NamedTuple):
    """A request, and whether it was answered."""

    request: bytes
    answered: t.Callable[[], bool]


def barrier(channel: t.Any, queue: str) -> Iterator[Step]:
    """The two steps of a barrier; the second one is not to be sent before its time.

    (RabbitMQ's channel crashes over it.)
    """
    number = channel.channel_id
    channel.begun.discard(_TAG)
    channel.ended.discard(_TAG)
    begin = frames.consume_nothing(number, queue, _TAG)
    yield Step(begin, lambda: _TAG in channel.begun)
    end = frames.cancel(number, _TAG, nowait=False)
    yield Step(end, lambda: _TAG in channel.ended)


def await_settled(channel: t.Any, queue: str) -> None:
    """Pass the barrier, on a connection that nobody else reads."""
    for step in barrier(channel, queue):
        channel.connection.write(step.request)
        while not step.answered():
            channel.connection.drain_events()
