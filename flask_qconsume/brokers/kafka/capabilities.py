"""The capabilities of Kafka, in words."""

from __future__ import annotations

from ...broker.capabilities import Capabilities
from . import naming

CAPABILITIES = Capabilities(
    broker="Kafka",
    guarantee=(
        "At least once, as long as the topics keep their records. A topic without"
        " replicas is lost with its broker; three replicas and 'min.insync.replicas' ="
        " 2 survive the loss of any one broker. A record is lost for a group that has"
        " not read it before the topic's retention ends. If no worker of a group ran"
        " for longer than the cluster keeps offsets, the group begins at the first"
        " record again, and logs a warning."
    ),
    shared=True,
    survives_worker_death=True,
    durable=True,
    foreign=True,
    exchanges=False,
    queue_arguments=False,
    bindings=False,
    confirms="all replicas in sync have the record (acks=all, idempotent producer)",
    unroutable="the cluster's list of topics, at most a minute old",
    knows_missing_queues=True,
    expires_unread=False,
    tombstones=True,
    priorities=False,
    priority="not supported",
    delays=(
        "a topic for each length of delay (1 s, 2 s, 4 s, … a week), read when its"
        " first record is due; so a message is late by its own delay at most, and later"
        " while no worker of the queue runs. With an ordering, the message keeps its"
        " place, and the worker waits"
    ),
    max_delay=naming.MAX_DELAY_SECONDS,
    delayed_publish=False,
    exact_delays=False,
    unattended_delays=False,
    order="as published within a partition; without an ordering, a retry comes later",
    orderings=("none", "key", "partition"),
    in_order=False,
    keeps_place=True,
    hands_over=False,
    exclusive_replays=False,
    dead_letters=(
        "a compacted topic for each queue, '_qconsume.<queue>.dead'; the original is"
        " committed when the copy is confirmed"
    ),
    counts_deaths=(
        "a header. If a worker does not answer for QCONSUME_LEASE, the metadata of its"
        " last commit tells which messages it had in hand; these become suspects. With"
        " an ordering, suspects keep their place, and the metadata has the count"
    ),
    counts_deliveries=False,
    unmarked_stops=True,
    unmarked_losses=False,
    dates_suspects=True,
    counts_delayed=True,
    counts_in_hand=False,
    counts_dead_letters=False,
    dates_waiting=True,
    counts_lag=True,
)
