"""Capabilities of the memory broker, for ``plan`` and the docs."""

from __future__ import annotations

from ...broker.capabilities import Capabilities

CAPABILITIES = Capabilities(
    broker="memory",
    guarantee=(
        "All messages, also delayed ones and dead letters, are lost when the process"
        " ends. For trying out and for tests."
    ),
    shared=False,
    survives_worker_death=False,
    durable=False,
    foreign=False,
    exchanges=True,
    queue_arguments=False,
    bindings=True,
    confirms="the message is in its queues",
    unroutable="a look-up in the bindings",
    knows_missing_queues=True,
    expires_unread=False,
    priorities=True,
    tombstones=False,
    priority="0 to 9, the highest first; a message without one counts as 0",
    delays="a heap in the process",
    max_delay=float("inf"),
    delayed_publish=True,
    exact_delays=True,
    unattended_delays=True,
    order="as published; a returned message keeps its place",
    orderings=("none",),
    in_order=True,
    keeps_place=True,
    hands_over=True,
    exclusive_replays=True,
    dead_letters="a list in the process",
    counts_deaths="nothing: the messages end with the process",
    counts_deliveries=False,
    unmarked_stops=True,
    unmarked_losses=True,
    dates_suspects=True,
    counts_delayed=True,
    counts_in_hand=False,
    counts_dead_letters=True,
    dates_waiting=True,
    counts_lag=False,
)
