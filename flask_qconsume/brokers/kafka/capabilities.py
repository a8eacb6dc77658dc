"""What Kafka can do, as values and in words."""

from __future__ import annotations

from ...broker.capabilities import Capabilities
from . import naming

CAPABILITIES = Capabilities(
    broker="Kafka",
    guarantee=(
        "At least once, as long as the topics keep their records: a topic without"
        " replicas is lost with its broker (three replicas and 'min.insync.replicas' ="
        " 2 survive the loss of any one broker), and records that a group has not read"
        " when the topic's retention is over are gone. A group that was away for longer"
        " than the cluster keeps offsets begins at the first record again, and logs a"
        " warning."
    ),
    shared=True,
    survives_worker_death=True,
    durable=True,
    foreign=True,
    exchanges=False,
    queue_arguments=False,
    bindings=False,
    confirms="all replicas in sync have the record (acks=all, idempotent producer)",
    unroutable="the cluster's own list of topics, at most a minute old",
    knows_missing_queues=True,
    expires_unread=False,
    tombstones=True,
    priorities=False,
    priority="not supported",
    delays=(
        "a topic per step (1 s, 2 s, 4 s, … a week), read when its first record is due;"
        " so a message is late by its delay at most, or by more while no worker of the"
        " queue runs. With an ordering, the worker holds it back in its place"
    ),
    max_delay=naming.MAX_DELAY_SECONDS,
    delayed_publish=False,
    exact_delays=False,
    unattended_delays=False,
    order="as published, within a partition; a retry comes later unless ordered",
    orderings=("none", "key", "partition"),
    in_order=False,
    keeps_place=True,
    hands_over=False,
    exclusive_replays=False,
    dead_letters=(
        "a compacted topic per queue, '_qconsume.<queue>.dead'; confirmed there, then"
        " committed in the queue's group"
    ),
    counts_deaths=(
        "in a header: the offset commit's metadata tells what was in flight when a"
        " worker was not heard of for QCONSUME_LEASE; these are suspects. With an"
        " ordering suspects stay in their place, and the metadata counts"
    ),
    counts_deliveries=False,
    unmarked_stops=True,
    unmarked_losses=False,
    dates_suspects=True,
)
