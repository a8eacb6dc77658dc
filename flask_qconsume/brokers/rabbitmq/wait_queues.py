"""The wait queues, in which RabbitMQ holds messages back until they are due.

A wait queue is a fanout exchange and a durable quorum queue of the same name. A message
stays for the queue's number of seconds at most, and is then dead-lettered with its own
routing key: from a *retry* queue to the default exchange, where the routing key is a
queue's name; from a *delay* queue to the app's exchange. The exact delay is the
message's own expiration. A queue expires messages at its head only, so a message behind
a longer delay is late. The times of the queues double, so it is late by less than half
of the queue's time, and less than its own delay.

Wait queues never expire, because an expiring queue deletes its messages. They are
declared on first use.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .declare import MAX_DELIVERY_LIMIT
from .declare import Declarer

#: Seconds of each wait queue: 1, 2, 4, … up to six days, and a week.
WAIT_QUEUE_SECONDS = (*(1 << n for n in range(20)), 604_800)
#: The longest delay, in seconds.
MAX_DELAY = float(WAIT_QUEUE_SECONDS[-1])


@dataclass(frozen=True)
class WaitQueue:
    """A queue in which messages wait until they are due, and its exchange."""

    name: str
    seconds: int
    #: The exchange to which due messages go; ``""`` is the default exchange.
    next_exchange: str

    def declare(self, declarer: Declarer) -> None:
        declarer.declare_exchange(self.name, "fanout")
        declarer.declare_queue(self.name, self._arguments())
        declarer.bind(self.name, self.name)

    def _arguments(self) -> dict[str, t.Any]:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": MAX_DELIVERY_LIMIT,
            "x-message-ttl": self.seconds * 1000,
            "x-dead-letter-exchange": self.next_exchange,
            # Without these two a due message is moved at most once, and is lost if the
            # broker dies meanwhile.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


def choose_retry_queue(app_exchange: str, delay: float) -> WaitQueue:
    """Return the wait queue for a retry, which goes to one queue when it is due."""
    seconds = _round_up(delay)
    return WaitQueue(f"{app_exchange}.wait.{seconds}", seconds, "")


def choose_delay_queue(app_exchange: str, delay: float) -> WaitQueue:
    """Return the wait queue from which a delayed message goes to its exchange."""
    seconds = _round_up(delay)
    return WaitQueue(f"{app_exchange}.delay.{seconds}", seconds, app_exchange)


def list_wait_queues(app_exchange: str) -> list[WaitQueue]:
    """Return all wait queues of an app: for retries, and for delayed messages."""
    return [
        choose(app_exchange, seconds)
        for choose in (choose_retry_queue, choose_delay_queue)
        for seconds in WAIT_QUEUE_SECONDS
    ]


def _round_up(delay: float) -> int:
    return next(seconds for seconds in WAIT_QUEUE_SECONDS if delay <= seconds)
