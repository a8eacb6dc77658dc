"""Find messages that may have killed a process, and decide where they go. No I/O.

A broker marks the messages that it delivers again. The process that had such a message
may have crashed on it, may have lost its connection, or only had it prefetched; the
mark does not tell which. So a redelivered message is a *suspect*: it moves to the queue
of suspects, where messages are handled one at a time. A message that is redelivered
from *that* queue was being handled when its process died, which counts as a death.
Harmless suspects are handled there once, and are never rejected.
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
    """Decide where a suspect goes; ``None`` if the delivery goes to its handler.

    The delivery limit counts starts: the first in the main queue, the others in the
    queue of suspects. A link that keeps an order does not move suspects: it counts
    their deaths itself, and delivers each suspect alone.
    """
    message = delivery.message
    if not message.redelivered:
        return None
    in_place = delivery.link.keeps_order
    if lane is Lane.MAIN and not in_place:
        return forward_to_suspects(delivery, deaths=0)
    deaths = message.deaths if in_place else message.deaths + 1
    if deaths + 1 < settings.delivery_limit:
        return None if in_place else forward_to_suspects(delivery, deaths)
    return Forward(
        delivery,
        Lane.DEAD,
        headers.make_dead_letter_headers(
            message,
            consumer.name,
            consumer.queue,
            f"its process died {deaths} times while it was handled alone, after it had"
            f" been in a process that died: 'QCONSUME_DELIVERY_LIMIT' ="
            f" {settings.delivery_limit} starts are reached",
            None,
            time.time(),
        ),
        expires=settings.dead_letter_ttl,
    )


def forward_to_suspects(delivery: Delivery, deaths: int | None = None) -> Forward:
    """Send a new copy to the lane of suspects, where it is not marked as redelivered.

    :param deaths: The number of processes that the message has ended; unless given, the
        number in its headers.
    """
    known = delivery.message.deaths if deaths is None else deaths
    changed = headers.make_suspect_headers(delivery.message, known, time.time())
    return Forward(delivery, Lane.SUSPECTS, changed)
