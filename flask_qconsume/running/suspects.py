"""Which messages may have killed a process, and what is done about it. No I/O.

A broker marks what it delivers again. It was given to a process that died, or lost its
connection, or only had it waiting; there is no telling. So a message delivered again is
a *suspect*: it goes to a lane of its own, where suspects are handled one at a time.
What is delivered again *there* was being handled when its process died: that is a
death, and counts. Healthy neighbours of a killer pass the lane once, and are never
rejected.
"""

from __future__ import annotations

import time

from ..broker import headers
from ..broker.link import Delivery
from ..broker.link import Forward
from ..broker.link import Lane
from ..registration.consumer import Consumer
from ..settings import Settings


def triage(
    delivery: Delivery, lane: Lane, consumer: Consumer, settings: Settings
) -> Forward | None:
    """Where a delivery has to go instead of to its handler, if anywhere.

    The limit counts starts: one in the queue, and the others in the lane. A link that
    keeps an order has no use for a lane: it counts, and gives suspects out alone.
    """
    message = delivery.message
    if not message.redelivered:
        return None
    in_place = delivery.link.keeps_order
    if lane is Lane.MAIN and not in_place:
        return to_lane(delivery, deaths=0)
    deaths = message.deaths if in_place else message.deaths + 1
    if deaths + 1 < settings.delivery_limit:
        return None if in_place else to_lane(delivery, deaths)
    return Forward(
        delivery,
        Lane.DEAD,
        headers.make_dead_letter_headers(
            message,
            consumer.name,
            consumer.queue,
            f"its process died {deaths} times while it was handled apart from others,"
            f" after it had been in a process that died: 'QCONSUME_DELIVERY_LIMIT' ="
            f" {settings.delivery_limit} starts are reached",
            None,
            time.time(),
        ),
        expires=settings.dead_letter_ttl,
    )


def to_lane(delivery: Delivery, deaths: int | None = None) -> Forward:
    """A fresh copy into the lane: it is not marked as delivered again."""
    known = delivery.message.deaths if deaths is None else deaths
    changed = headers.make_suspect_headers(delivery.message, known, time.time())
    return Forward(delivery, Lane.SUSPECTS, changed)
