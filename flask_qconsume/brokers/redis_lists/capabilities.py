"""Capabilities of kombu's lists in Redis, in words."""

from __future__ import annotations

from ..redis.capabilities import create_capabilities

CAPABILITIES = create_capabilities(
    broker="Redis",
    kind="lists",
    guarantee=(
        "At least once, as long as the server keeps its data: without an append-only"
        " file with 'appendfsync always' a crash of Redis loses the latest messages, or"
        " all; a failover loses what was not replicated yet; 'maxmemory' must not evict"
        " ('noeviction'). Messages expire only when they are read. A"
        " kombu or Celery worker that reads the same queue takes messages out before it"
        " notes them: killed in between, it loses them, and its visibility timeout must"
        " be longer than QCONSUME_LEASE."
    ),
    confirms=(
        "Redis has answered: the message is in all of its queues, in the server's"
        " memory; on disk only as the server is set up; on as many replicas as the"
        " transport option 'wait_replicas' says"
    ),
    unroutable=(
        "our look-up of kombu's bindings, at most 1 s old; a queue addressed by its"
        " name through the default exchange always counts as there"
    ),
    priority=(
        "0 to 9, the highest first, in the steps of 'priority_steps'; none counts as 9,"
        " as it does for kombu"
    ),
    delays=(
        "a sorted set per queue, moved to the queue by its workers when due; late by"
        " some 0.1 s, a delay below 1 s published by another process by up to 1 s; held"
        " back for longer while no worker of the queue runs"
    ),
    dead_letters=(
        "a sorted set per queue, '<queue>.dead', by the time they are kept to; put"
        " there, and taken from the queue, in one step"
    ),
    counts_deaths=(
        "in a header: a message whose worker is not heard of for QCONSUME_LEASE goes"
        " back to its queue, marked as redelivered: from then on it is a suspect; a"
        " clean stop and a lost connection mark nothing"
    ),
)
