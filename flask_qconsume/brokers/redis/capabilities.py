"""Capabilities that both layouts in Redis have in common."""

from __future__ import annotations

import typing as t

from ...broker.capabilities import Capabilities

_YEAR_SECONDS = 365 * 86_400.0


def create_capabilities(**texts: t.Any) -> Capabilities:
    """Return the capabilities of a broker on Redis: of lists, or of streams.

    :param texts: The fields that differ between lists and streams.
    """
    return Capabilities(
        **texts,
        shared=True,
        survives_worker_death=True,
        durable=True,
        foreign=True,
        exchanges=True,
        queue_arguments=False,
        bindings=True,
        knows_missing_queues=False,
        expires_unread=False,
        priorities=True,
        tombstones=False,
        max_delay=10 * _YEAR_SECONDS,
        delayed_publish=True,
        exact_delays=True,
        unattended_delays=False,
        order="as published; messages that are delivered again come first",
        orderings=("none",),
        in_order=True,
        keeps_place=True,
        hands_over=True,
        exclusive_replays=True,
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
