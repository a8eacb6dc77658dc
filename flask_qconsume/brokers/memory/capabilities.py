"""The capabilities of the memory broker, in words."""

from __future__ import annotations

from ...broker.capabilities import Capabilities

CAPABILITIES = Capabilities(
    broker="memory",
    guarantee=(
        "Nothing outlives the process: whatever is queued, held back or a dead letter"
        " when it ends is lost. For trying out and for tests."
    ),
    shared=False,
    survives_worker_death=False,
    durable=False,
    foreign=False,
    exchanges=True,
    queue_arguments=False,
    bindings=True,
    confirms="the message is in its queues",
    unroutable="looked up in the bindings",
    knows_missing_queues=True,
    expires_unread=False,
    priorities=True,
    tombstones=False,
    priority="0 to 9, the highest first, none as 0",
    delays="a heap in the process",
    max_delay=float("inf"),
    delayed_publish=True,
    exact_delays=True,
    unattended_delays=True,
    order="as published; what is given back comes again in its old place",
    orderings=("none",),
    in_order=True,
    keeps_place=True,
    hands_over=True,
    exclusive_replays=True,
    dead_letters="a list in the process",
    counts_deaths="not at all: the messages die with the process",
    counts_deliveries=False,
    unmarked_stops=True,
    unmarked_losses=True,
    dates_suspects=True,
)
