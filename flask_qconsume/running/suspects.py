"""Finds messages that may have killed a process, and decides where they go. No I/O.

A broker marks the messages that it delivers again, but the mark does not tell why: the
process that had the message may have crashed on it, may have lost its connection, or
may only have prefetched it. So each redelivered message is a *suspect*: it moves to a
queue of suspects, which are handled one at a time. If a suspect is redelivered from
that queue, it was being handled when its process died: that counts as a death. A
message that only happened to be in a process that died passes the queue of suspects
once, and is never rejected for it.
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
    """Decide whether a delivery becomes a suspect, a dead letter, or neither.

    ``QCONSUME_DELIVERY_LIMIT`` limits how often a handler starts with the message: once
    in the main queue, then in the queue of suspects. A link (connection) that keeps
    messages in order needs no such queue: it counts deaths, and delivers each suspect
    alone.

    :returns: The forward to the suspects or to the dead letters; ``None`` if the
        message goes to its handler.
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
    """Create the forward that moves a message to the queue of suspects.

    A suspect is a message that may have killed a process. The broker does not mark the
    copy as redelivered.

    :param deaths: How many processes died while they handled the message; by default,
        the number in the message's headers.
    """
    known = delivery.message.deaths if deaths is None else deaths
    changed = headers.make_suspect_headers(delivery.message, known, time.time())
    return Forward(delivery, Lane.SUSPECTS, changed)
