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
        " nodes. Messages are handled again if a worker crashes or a connection is"
        " lost, and published again if a confirmation is lost."
    ),
    shared=True,
    survives_worker_death=True,
    durable=True,
    foreign=True,
    exchanges=True,
    queue_arguments=True,
    bindings=True,
    confirms="a majority of the nodes has the message on disk",
    unroutable="the broker, which returns it; not for delayed messages",
    knows_missing_queues=True,
    expires_unread=True,
    tombstones=False,
    priorities=False,
    priority=(
        "not supported by quorum queues; use 'QCONSUME_QUEUE_TYPE' = 'classic' and a"
        " kombu.Queue with 'max_priority'"
    ),
    delays=(
        "durable wait queues of 1, 2, 4, … seconds up to a week, shared by the app's"
        " consumers; a message behind a longer delay is late, by its own delay at most;"
        " an unroutable message stays in its wait queue"
    ),
    max_delay=MAX_DELAY,
    delayed_publish=True,
    exact_delays=False,
    unattended_delays=True,
    order="as published; messages that are delivered again may be in another order",
    orderings=("none",),
    in_order=True,
    keeps_place=False,
    hands_over=True,
    exclusive_replays=True,
    dead_letters=(
        "a confirmed copy in '<queue>.dead', which expires after"
        " 'QCONSUME_DEAD_LETTER_TTL', or never if that is above 49 days"
    ),
    counts_deaths=(
        "a header. A message that is delivered again goes to '<queue>.suspects', where"
        " each death of a process counts; the broker's own delivery limit is off"
    ),
    counts_deliveries=True,
    unmarked_stops=False,
    unmarked_losses=False,
    dates_suspects=False,
    counts_delayed=False,
    counts_in_hand=False,
    counts_dead_letters=True,
    dates_waiting=False,
    counts_lag=False,
)

CLASSIC = dataclasses.replace(
    QUORUM,
    kind="classic queues",
    guarantee=(
        "At least once. Classic queues survive restarts, but not the loss of their"
        " node's disk. Messages are handled again if a worker crashes or a connection"
        " is lost, and published again if a confirmation is lost."
    ),
    confirms="the queue's node has the message on disk",
    priorities=True,
    priority=(
        "0 to 9, the highest first; a message without one counts as 0; only in a queue"
        " that is given as a kombu.Queue with 'max_priority'"
    ),
    order="as published; messages that are delivered again keep their place",
    keeps_place=True,
    counts_deliveries=False,
)
