"""The number of ready messages in a queue, and whether a 0 can be trusted.

RabbitMQ gives a quorum queue 0.25 s to answer. If there is no answer, which happens on
a busy node, it reports 0. So a 0 counts only if it came sooner.
"""

from __future__ import annotations

import time
import typing as t

from amqp.exceptions import NotFound

from ...errors import BrokerUnavailable
from ...errors import TopologyMismatch
from .errors import is_refused_as

#: Seconds after which a 0 may mean that the queue has not answered: RabbitMQ's 0.25,
#: less a margin for a network of varying speed.
_UNANSWERED_SECONDS = 0.2
#: Seconds for which an uncertain count is repeated.
_RETRY_SECONDS = 3.0

_T = t.TypeVar("_T")


class QueueUnresponsive(BrokerUnavailable):
    """A quorum queue does not tell RabbitMQ the number of its messages."""


def count_ready(channel: t.Any, queue: str) -> int:
    """Count the messages in a queue that no consumer holds; 0 without the queue.

    :raises QueueUnresponsive: if the queue does not answer the broker.
    """
    deadline = time.monotonic() + _RETRY_SECONDS
    fastest_trip = 0.0
    while True:
        count, seconds = _time(lambda: _ask_ready(channel, queue))
        # The broker closes the channel if the queue does not exist.
        is_certain = count or not channel.is_open
        if is_certain or seconds < fastest_trip + _UNANSWERED_SECONDS:
            return count
        if time.monotonic() > deadline:
            raise QueueUnresponsive(
                f"The queue '{queue}' does not tell RabbitMQ how many messages it has."
                " Try again; look at the load of the broker if it stays so."
            )
        _, trip = _time(lambda: _make_round_trip(channel))
        fastest_trip = min(fastest_trip or trip, trip)


def _ask_ready(channel: t.Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except NotFound as error:
        if is_refused_as(error, TopologyMismatch):
            return 0
        raise


def _make_round_trip(channel: t.Any) -> None:
    """Send a request that the broker answers at once, without asking a queue.

    The request needs no permission.
    """
    channel.exchange_declare("amq.topic", "topic", passive=True, auto_delete=False)


def _time(request: t.Callable[[], _T]) -> tuple[_T, float]:
    began = time.monotonic()
    answer = request()
    return answer, time.monotonic() - began
