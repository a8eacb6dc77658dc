"""Capabilities of PostgreSQL, for ``plan`` and the docs."""

from __future__ import annotations

from ....broker.capabilities import Capabilities

CAPABILITIES = Capabilities(
    broker="PostgreSQL",
    guarantee=(
        "A message is on disk before 'publish' returns, and stays until it is handled."
        " At least once. A fail-over loses the messages that the standby did not have"
        " yet, unless commits wait for it ('synchronous_standby_names')."
    ),
    shared=True,
    survives_worker_death=True,
    durable=True,
    foreign=True,
    exchanges=True,
    queue_arguments=False,
    bindings=True,
    confirms="the transaction with the message's rows is on disk",
    unroutable="a look-up in the table of bindings",
    knows_missing_queues=True,
    expires_unread=True,
    priorities=True,
    tombstones=False,
    priority="0 to 9, the highest first; a message without one counts as 0",
    delays="the message's row, which has the time at which it is due",
    max_delay=float("inf"),
    delayed_publish=True,
    exact_delays=True,
    unattended_delays=True,
    order=(
        "as stored; a returned or retried message keeps its place; by key, if the"
        " consumer has that ordering"
    ),
    orderings=("none", "key"),
    in_order=True,
    keeps_place=True,
    hands_over=True,
    exclusive_replays=True,
    dead_letters="a table of their own, with indexes, for QCONSUME_DEAD_LETTER_TTL",
    counts_deaths="a header of the message, in the queue of suspects",
    counts_deliveries=False,
    unmarked_stops=True,
    unmarked_losses=True,
    dates_suspects=True,
    counts_delayed=True,
    counts_in_hand=True,
    counts_dead_letters=True,
    dates_waiting=True,
    counts_lag=False,
)
