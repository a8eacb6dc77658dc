"""Capabilities of kombu's lists in Redis, for ``plan`` and the docs."""

from __future__ import annotations

from ..redis.capabilities import create_capabilities

CAPABILITIES = create_capabilities(
    broker="Redis",
    kind="lists",
    guarantee=(
        "At least once, as long as Redis keeps its data. Without 'appendonly yes' and"
        " 'appendfsync always', a crash of Redis loses the latest messages, or all of"
        " them. A fail-over loses messages that were not replicated yet. Set"
        " 'maxmemory-policy' to 'noeviction'. Messages expire only when they are read."
        " If a kombu or Celery worker that reads the same queue is killed, it may lose"
        " a message that it had just taken; its visibility timeout must be longer than"
        " QCONSUME_LEASE."
    ),
    confirms=(
        "the message is in all of its queues, in the memory of Redis. The configuration"
        " of Redis decides when it is on disk, and the transport option 'wait_replicas'"
        " on how many replicas it is"
    ),
    unroutable=(
        "our look-up of kombu's bindings, at most 1 s old; a queue that is addressed by"
        " its name through the default exchange always counts as there"
    ),
    priority=(
        "0 to 9, the highest first, in steps ('priority_steps'); a message without one"
        " counts as 9, as it does for kombu"
    ),
    delays=(
        "a sorted set for each queue, from which workers move due messages; late by"
        " some 0.1 s, or by up to 1 s if another process published it with a delay"
        " below 1 s; later while no worker of the queue runs"
    ),
    dead_letters=(
        "a sorted set for each queue, '<queue>.dead', in the order in which they"
        " expire; put there, and taken from the queue, in one step"
    ),
    counts_deaths=(
        "a header. If a worker does not answer for QCONSUME_LEASE, its messages go back"
        " to their queue, marked as redelivered, and become suspects. A clean stop and"
        " a lost connection mark no messages"
    ),
)
