"""How many messages are ready in a queue, and that a 0 is one.

RabbitMQ asks a quorum queue for 0.25 s, and says 0 if the queue has not answered until
then, which happens on a busy node. So a 0 counts only if it came sooner than that.
"""

from __future__ import annotations

import time
import typing as t

from amqp.exceptions import NotFound

from ...errors import BrokerUnavailable
from ...errors import TopologyMismatch
from .errors import is_refused_as

#: Seconds after which a 0 may mean that the queue has not answered. RabbitMQ gives it
#: 0.25; the difference is for a way to the broker that is now faster, now slower.
_UNANSWERED = 0.2
#: Seconds that a queue is asked again for.
_LONGEST = 3.0

_T = t.TypeVar("_T")


class Unanswered(BrokerUnavailable):
    """A quorum queue does not tell RabbitMQ what is in it."""


def depth(channel: t.Any, queue: str) -> int:
    """How many messages wait in a queue; 0 if there is none of that name.

    :raises Unanswered: if that is unknown.
    """
    deadline = time.monotonic() + _LONGEST
    fastest = 0.0
    while True:
        count, seconds = _timed(lambda: _ready(channel, queue))
        is_certain = count or not channel.is_open  # It closed over a missing queue.
        if is_certain or seconds < fastest + _UNANSWERED:
            return count
        if time.monotonic() > deadline:
            raise Unanswered(
                f"The queue '{queue}' does not tell RabbitMQ how many messages it has."
                " Try again; look at the load of the broker if it stays so."
            )
        _, trip = _timed(lambda: _round_trip(channel))
        fastest = min(fastest or trip, trip)


def _ready(channel: t.Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except NotFound as error:
        if is_refused_as(error, TopologyMismatch):
            return 0
        raise


def _round_trip(channel: t.Any) -> None:
    """Ask for what concerns no queue, and needs no permission."""
    channel.exchange_declare("amq.topic", "topic", passive=True, auto_delete=False)


def _timed(request: t.Callable[[], _T]) -> tuple[_T, float]:
    began = time.monotonic()
    answer = request()
    return answer, time.monotonic() - began
