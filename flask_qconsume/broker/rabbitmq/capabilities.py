"""What RabbitMQ can do, in words."""

from __future__ import annotations

from ..capabilities import Capabilities
from .ladder import MAX_DELAY

CAPABILITIES = Capabilities(
    broker="RabbitMQ",
    shared=True,
    survives_worker_death=True,
    durable=True,
    priorities=True,
    max_delay=MAX_DELAY,
    delays=(
        "durable wait queues of 1, 2, 4, … seconds up to a week, one set per app; a"
        " message may come late by its own delay, at the most, where it waits behind a"
        " longer wait; one that nobody would get stays in its wait queue"
    ),
    dead_letters=(
        "a confirmed copy in '<queue>.dead', with an expiration of its own; above 49"
        " days it does not expire"
    ),
    counts_deaths=(
        "in a header: a message delivered again goes to '<queue>.suspects', where each"
        " death of a process counts; the broker's own delivery limit is off"
    ),
    confirms=(
        "the broker took the message over: on quorum queues a majority of the nodes has"
        " it on disk, on classic queues the queue's node has"
    ),
    unroutable="returned by the broker; not known for delayed messages",
    guarantee=(
        "At least once. Quorum queues (the default) survive the loss of a minority of"
        " the broker's nodes; classic queues survive restarts, but not the loss of the"
        " node's disk. Messages are handled again when a worker or a connection dies,"
        " and published again when a confirmation is lost. Priorities: only on classic"
        " queues given as a kombu.Queue with 'max_priority'."
    ),
)
