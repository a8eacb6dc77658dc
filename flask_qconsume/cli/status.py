"""``flask qconsume status``: what waits on the broker, consumer by consumer."""

from __future__ import annotations

import json
import time
import typing as t

import click

from ..broker.base import Suspects
from ..extension import AppConsumers
from ..registration.consumer import Consumer
from ..registration.registry import find
from .context import check_shared
from .context import with_consumers
from .durations import spoken
from .table import table

_HEADERS = ("Consumer", "Queue", "Waiting", "Suspects", "Oldest", "Dead letters")

#: What stands where the broker cannot tell.
_UNKNOWN = "unknown"


class Standing(t.NamedTuple):
    """How one consumer's messages stand."""

    consumer: str
    queue: str
    waiting: int
    suspects: int
    #: For how many seconds the oldest suspect has been one; ``None`` where nobody can
    #: tell, or there is none.
    oldest: float | None
    dead_letters: int


@click.command()
@click.argument("names", nargs=-1, metavar="[CONSUMER]...")
@click.option("--json", "as_lines", is_flag=True, help="One line of JSON each.")
@with_consumers
def status(app: AppConsumers, names: tuple[str, ...], as_lines: bool) -> None:
    """Show how many messages, suspects and dead letters wait.

    The broker is asked; no worker needs to run. What a worker has in hand is not
    counted, but on Kafka. The age of the oldest suspect is not to be had from RabbitMQ:
    there the workers tell it, by 'run --health'.
    """
    check_shared(app, "count messages")
    consumers = app.consumers
    chosen = [find(consumers, name) for name in names] or list(consumers.values())
    found = [_standing(app, consumer, time.time()) for consumer in chosen]
    if as_lines:
        for each in found:
            click.echo(json.dumps(each._asdict()))
    elif found:
        click.echo(table(_HEADERS, [_row(each) for each in found]))
    else:
        click.echo("No consumers were registered.")
    for text in app.broker.caveats():
        click.echo(f"Warning: {text}", err=True)


def _standing(app: AppConsumers, consumer: Consumer, now: float) -> Standing:
    plan, broker = app.topology.queue(consumer.queue), app.broker
    suspects = broker.suspects(plan)
    return Standing(
        consumer.name,
        plan.name,
        broker.depth(plan.name),
        suspects.waiting,
        _age(suspects, now),
        broker.dead_letters(plan).count(),
    )


def _age(suspects: Suspects, now: float) -> float | None:
    return None if suspects.since is None else round(max(0.0, now - suspects.since), 1)


def _row(each: Standing) -> list[str]:
    oldest = "" if not each.suspects else _UNKNOWN
    return [
        each.consumer,
        each.queue,
        str(each.waiting),
        str(each.suspects),
        oldest if each.oldest is None else spoken(each.oldest),
        str(each.dead_letters),
    ]
