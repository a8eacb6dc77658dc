"""Command ``flask qconsume status``: counts the messages of each consumer."""

from __future__ import annotations

import dataclasses
import json
import time
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence

import click

from ..broker.base import HeldBack
from ..broker.base import QueueStatus
from ..broker.topology import QueuePlan
from ..extension import AppConsumers
from ..registration.consumer import Consumer
from ..registration.registry import find_consumer
from .context import check_shared
from .context import with_consumers
from .durations import format_duration
from .table import format_table

_HEADERS = (
    "Consumer",
    "Queue",
    "Waiting",
    "Oldest",
    "Delayed",
    "In hand",
    "Suspects",
    "Oldest suspect",
    "Dead letters",
)

#: The header of one more column, where the broker has consumer groups.
_LAG = "Lag"

#: Text in place of a number that the broker cannot tell.
_UNKNOWN = "unknown"


class ConsumerStatus(t.NamedTuple):
    """The numbers of one consumer's messages; ``None`` where a broker cannot tell."""

    consumer: str
    queue: str
    waiting: int | None
    #: Seconds since the oldest of the waiting messages is ready; ``None`` also if no
    #: message waits.
    oldest: float | None
    delayed: int | None
    in_hand: int | None
    suspects: int | None
    #: Seconds since the oldest suspect became one; ``None`` also without suspects.
    oldest_suspect: float | None
    dead_letters: int | None
    #: ``None`` if the broker has no consumer groups.
    lag: int | None


@click.command()
@click.argument("names", nargs=-1, metavar="[CONSUMER]...")
@click.option(
    "--json", "as_lines", is_flag=True, help="Print a line of JSON for each consumer."
)
@with_consumers
def status(app: AppConsumers, names: tuple[str, ...], as_lines: bool) -> None:
    """Show how many messages, suspects and dead letters wait.

    The counts come from the broker; no worker needs to run. A number that the broker
    cannot tell is 'unknown', and null in JSON.

    'Oldest' is the time for which the oldest waiting message has been ready. RabbitMQ
    cannot tell it, nor the number of delayed messages of each consumer, nor the age of
    the oldest suspect, which 'run --health' of a worker shows. RabbitMQ tells the
    number of messages in hand only with 'QCONSUME_MANAGEMENT_URL'. On Kafka, messages
    in hand count as waiting, and 'Lag' is the number of records behind the committed
    offsets.
    """
    check_shared(app, "count messages")
    consumers = app.consumers
    chosen = [find_consumer(consumers, name) for name in names]
    chosen = chosen or list(consumers.values())
    statuses = _read_statuses(app, chosen, time.time())
    held_back = app.broker.read_held_back() if statuses else None
    if as_lines:
        for consumer_status in statuses:
            click.echo(json.dumps(_to_json(consumer_status, held_back)))
    elif statuses:
        headers = (*_HEADERS, _LAG) if _has_lag(statuses) else _HEADERS
        rows = [_format_row(each)[: len(headers)] for each in statuses]
        click.echo(format_table(headers, rows))
        if held_back is not None:
            click.echo(f"\n{_describe_held_back(held_back)}")
    else:
        click.echo("No consumers were registered.")
    for text in app.broker.caveats():
        click.echo(f"Warning: {text}", err=True)


def _read_statuses(
    app: AppConsumers, consumers: Sequence[Consumer], now: float
) -> list[ConsumerStatus]:
    plans = [app.topology.queue(consumer.queue) for consumer in consumers]
    statuses = app.broker.read_statuses(plans)
    return [
        _create_status(*each, now)
        for each in zip(consumers, plans, statuses, strict=True)
    ]


def _create_status(
    consumer: Consumer, plan: QueuePlan, status: QueueStatus, now: float
) -> ConsumerStatus:
    suspects = status.suspects
    return ConsumerStatus(
        consumer=consumer.name,
        queue=plan.name,
        waiting=status.waiting,
        oldest=_compute_age(status.oldest, now),
        delayed=status.delayed,
        in_hand=status.in_hand,
        suspects=None if suspects is None else suspects.waiting,
        oldest_suspect=_compute_age(suspects.since if suspects else None, now),
        dead_letters=status.dead_letters,
        lag=status.lag,
    )


def _has_lag(statuses: Sequence[ConsumerStatus]) -> bool:
    return any(each.lag is not None for each in statuses)


def _compute_age(since: float | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since), 1)


def _to_json(
    consumer_status: ConsumerStatus, held_back: HeldBack | None
) -> dict[str, t.Any]:
    held_back_document = None if held_back is None else dataclasses.asdict(held_back)
    return {**consumer_status._asdict(), "held_back_for_the_app": held_back_document}


def _format_row(each: ConsumerStatus) -> list[str]:
    return [
        each.consumer,
        each.queue,
        _format_count(each.waiting),
        _format_age(each.oldest, each.waiting),
        _format_count(each.delayed),
        _format_count(each.in_hand),
        _format_count(each.suspects),
        _format_age(each.oldest_suspect, each.suspects),
        _format_count(each.dead_letters),
        _format_count(each.lag),
    ]


def _format_age(age: float | None, count: int | None) -> str:
    if age is not None:
        return format_duration(age)
    return "" if count == 0 else _UNKNOWN


def _format_count(count: int | None) -> str:
    return _UNKNOWN if count is None else str(count)


def _describe_held_back(held_back: HeldBack) -> str:
    refused = (
        "unknown, without 'QCONSUME_MANAGEMENT_URL'"
        if held_back.refused is None
        else str(held_back.refused)
    )
    return (
        "Held back by the broker, for all consumers of the app together:\n"
        f"  retries           {_describe_steps(held_back.retries)}\n"
        f"  delayed messages  {_describe_steps(held_back.delayed)}\n"
        f"  due, but refused by a full or missing queue: {refused}"
    )


def _describe_steps(counts: Mapping[int, int | None]) -> str:
    known_counts = [count for count in counts.values() if count is not None]
    total = sum(known_counts) if len(known_counts) == len(counts) else None
    steps = ", ".join(
        f"{_format_count(count)} of up to {format_duration(seconds)}"
        for seconds, count in sorted(counts.items())
    )
    return _format_count(total) + (f" ({steps})" if steps else "")
