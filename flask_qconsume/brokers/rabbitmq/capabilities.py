"""The capabilities of RabbitMQ, with quorum queues and with classic queues."""

from __future__ import annotations

import dataclasses

from ...broker.capabilities import Capabilities
from .wait_queues import MAX_DELAY

QUORUM = Capabilities(
    broker="RabbitMQ",
    kind="quorum queues",
    guarantee=(
        "At least once. Quorum queues survive the loss of a minority of the broker's"
        " nodes. Messages are handled again when a worker or a connection dies, and"
        " published again when a confirmation is lost."
    ),
    shared=True,
    survives_worker_death=True,
    durable=True,
    foreign=True,
    exchanges=True,
    queue_arguments=True,
    bindings=True,
    confirms="the broker took the message over: a majority of the nodes has it on disk",
    unroutable="returned by the broker; not known for delayed messages",
    knows_missing_queues=True,
    expires_unread=True,
    tombstones=False,
    priorities=False,
    priority=(
        "unknown to quorum queues; 'QCONSUME_QUEUE_TYPE' = 'classic' and a kombu.Queue"
        " with 'max_priority' have them"
    ),
    delays=(
        "durable wait queues of 1, 2, 4, … seconds up to a week, one set per app; a"
        " message may come late by its own delay, at the most, where it waits behind a"
        " longer wait; one that no consumer would get stays in its wait queue"
    ),
    max_delay=MAX_DELAY,
    delayed_publish=True,
    exact_delays=False,
    unattended_delays=True,
    order="as published; what is given back or lost may come in another order",
    orderings=("none",),
    in_order=True,
    keeps_place=False,
    hands_over=True,
    exclusive_replays=True,
    dead_letters=(
        "a confirmed copy in '<queue>.dead', with an expiration of its own; above 49"
        " days it does not expire"
    ),
    counts_deaths=(
        "in a header: a message delivered again goes to '<queue>.suspects', where each"
        " death of a process counts; the broker's own delivery limit is off"
    ),
    counts_deliveries=True,
    unmarked_stops=False,
    unmarked_losses=False,
    dates_suspects=False,
)

CLASSIC = dataclasses.replace(
    QUORUM,
    kind="classic queues",
    guarantee=(
        "At least once. Classic queues survive restarts, but not the loss of their"
        " node's disk. Messages are handled again when a worker or a connection dies,"
        " and published again when a confirmation is lost."
    ),
    confirms="the broker took the message over: the queue's node has it on disk",
    priorities=True,
    priority=(
        "0 to 9, the highest first, none as 0; only in a queue that is given as a"
        " kombu.Queue with 'max_priority'"
    ),
    order="as published; what is given back or lost comes again in its old place",
    keeps_place=True,
    counts_deliveries=False,
)
