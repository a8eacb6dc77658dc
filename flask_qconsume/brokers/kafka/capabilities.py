"""What Kafka can do, in words."""

from __future__ import annotations

from ...broker.capabilities import Capabilities
from . import naming

CAPABILITIES = Capabilities(
    broker="Kafka",
    guarantee=(
        "At least once, as long as the topics keep their records: a topic that is on"
        " one broker only is lost with it (three replicas and 'min.insync.replicas' = 2"
        " survive any one broker), and what a group has not read when the topic's"
        " retention is over is gone. A group that was away for longer than the cluster"
        " keeps offsets begins at the first record again, and says so."
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
    priority="not to be had",
    delays=(
        "a topic per step, doubling from a second to a week, read when its first record"
        " is due; so a delay is late by its own length at the most, by more while no"
        " worker of the queue runs. With an ordering: in its place, by the worker"
    ),
    max_delay=naming.LONGEST,
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
        " committed here"
    ),
    counts_deaths=(
        "in a header: the offset commit's metadata tells what was in flight when a"
        " worker was not heard of for QCONSUME_LEASE; that is a suspect. With an"
        " ordering they stay in their place, and the metadata counts"
    ),
    counts_deliveries=False,
    unmarked_stops=True,
    unmarked_losses=False,
    dates_suspects=True,
)
