"""Capabilities of Redis Streams, in words."""

from __future__ import annotations

from ..redis.capabilities import create_capabilities

CAPABILITIES = create_capabilities(
    broker="Redis Streams",
    kind="",
    guarantee=(
        "At least once, as long as the server keeps its data: without an append-only"
        " file with 'appendfsync always' a crash of Redis loses the latest messages, or"
        " all; a failover loses what was not replicated yet; 'maxmemory' must not evict"
        " ('noeviction'). Nothing is trimmed that was not handled, and what was handled"
        " is deleted: a stream that other groups read too is not for this. Messages"
        " expire only when they are read. On a cluster, a publish to"
        " several queues that ends with an error may be in some of them. Redis 6.2 or"
        " later."
    ),
    confirms=(
        "Redis has answered: the message is in all of its streams, put there in one"
        " step (on a cluster in one for each slot), in the server's memory; on disk"
        " only as the server is set up; on as many replicas as the transport option"
        " 'wait_replicas' says"
    ),
    unroutable=(
        "our look-up of the bindings, at most 1 s old; a queue addressed by its name"
        " through the default exchange always counts as there"
    ),
    priority=(
        "0 to 9, the highest first, in the steps of 'priority_steps'; none counts as 0"
    ),
    delays=(
        "a sorted set per queue, moved to the stream by its workers when due; late by"
        " some 0.1 s, a delay below 1 s published by another process by up to 1 s; held"
        " back for longer while no worker of the queue runs"
    ),
    dead_letters=(
        "a sorted set per queue, '{<queue>}.dead', by the time they are kept to; put"
        " there, and taken from the stream, in one step"
    ),
    counts_deaths=(
        "in a header: an entry whose worker is not heard of for QCONSUME_LEASE is taken"
        " from it and given out again, marked as redelivered: from then on it is a"
        " suspect; a clean stop and a lost connection mark nothing"
    ),
)
