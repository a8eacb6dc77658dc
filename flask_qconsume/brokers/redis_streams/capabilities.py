"""Capabilities of Redis Streams, for ``plan`` and the docs."""

from __future__ import annotations

from ..redis.capabilities import create_capabilities

CAPABILITIES = create_capabilities(
    broker="Redis Streams",
    kind="",
    guarantee=(
        "At least once, as long as Redis keeps its data. Without 'appendonly yes' and"
        " 'appendfsync always', a crash of Redis loses the latest messages, or all of"
        " them. A fail-over loses messages that were not replicated yet. Set"
        " 'maxmemory-policy' to 'noeviction'. Handled entries are deleted, and no"
        " others, so do not consume a stream that other groups read. Messages expire"
        " only when they are read. On a cluster, a message whose publish to several"
        " queues failed may be in some of them. Needs Redis 6.2 or later."
    ),
    confirms=(
        "the message is in all of its streams, in the memory of Redis; this is one"
        " step, or one for each slot on a cluster. The configuration of Redis decides"
        " when it is on disk, and the transport option 'wait_replicas' on how many"
        " replicas it is"
    ),
    unroutable=(
        "our look-up of the bindings, at most 1 s old; a queue that is addressed by its"
        " name through the default exchange always counts as there"
    ),
    priority=(
        "0 to 9, the highest first, in steps ('priority_steps'); a message without one"
        " counts as 0"
    ),
    delays=(
        "a sorted set for each queue, from which workers move due messages; late by"
        " some 0.1 s, or by up to 1 s if another process published it with a delay"
        " below 1 s; later while no worker of the queue runs"
    ),
    dead_letters=(
        "a sorted set for each queue, '{<queue>}.dead', in the order in which they"
        " expire; put there, and taken from the stream, in one step"
    ),
    counts_deaths=(
        "a header. If a worker does not answer for QCONSUME_LEASE, other workers get"
        " its entries, marked as redelivered, which become suspects. A clean stop and a"
        " lost connection mark no entries"
    ),
)
