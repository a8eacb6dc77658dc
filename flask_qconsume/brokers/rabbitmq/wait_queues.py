"""The ladders of wait queues by which RabbitMQ holds a message back.

A step is a fanout exchange and a durable quorum queue of the same name, whose messages
live for the step's seconds at most and then go on under the routing key they came with:
on the *retry* ladder by the default exchange, so the routing key is a queue's name; on
the *delay* ladder by the app's exchange. The exact delay is the message's own
expiration. A queue expires messages at its head only, so one that waits behind a longer
wait is late, but by less than half a step: steps double, so by less than its delay.

Steps never expire: an expiring wait queue takes confirmed messages with it. They are
declared when they are used first.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .declare import UNLIMITED
from .declare import Declaring

#: The seconds of the steps: 1, 2, 4, … some six days, and a week.
STEPS = (*(1 << n for n in range(20)), 604_800)
MAX_DELAY = float(STEPS[-1])


@dataclass(frozen=True)
class Step:
    """One wait queue."""

    name: str
    seconds: int
    #: Where its messages go afterwards; ``""`` is the default exchange.
    exchange: str

    def declare(self, declaring: Declaring) -> None:
        """Declare it, or check that it is there."""
        declaring.exchange(self.name, "fanout")
        declaring.queue(self.name, self._arguments())
        declaring.bind(self.name, self.name)

    def _arguments(self) -> dict[str, t.Any]:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": UNLIMITED,
            "x-message-ttl": self.seconds * 1000,
            "x-dead-letter-exchange": self.exchange,
            # Without these two an expired message is moved at most once: it is gone if
            # the broker dies on the way.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


def retry_step(app_exchange: str, delay: float) -> Step:
    """The step for a message that waits and then goes to one queue."""
    seconds = _seconds(delay)
    return Step(f"{app_exchange}.wait.{seconds}", seconds, "")


def delay_step(app_exchange: str, delay: float) -> Step:
    """The step for a message that waits and then is published to the app's exchange."""
    seconds = _seconds(delay)
    return Step(f"{app_exchange}.delay.{seconds}", seconds, app_exchange)


def all_steps(app_exchange: str) -> list[Step]:
    """Both ladders."""
    return [kind(app_exchange, s) for kind in (retry_step, delay_step) for s in STEPS]


def _seconds(delay: float) -> int:
    return next(seconds for seconds in STEPS if delay <= seconds)
