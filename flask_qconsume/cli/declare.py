"""Command ``flask qconsume declare``: declares the app's queues on the broker."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import click

from ..broker.base import Broker
from ..broker.topology import Binding
from ..broker.topology import QueuePlan
from ..broker.urls import open_broker
from ..extension import AppConsumers
from .context import check_shared
from .context import with_consumers
from .plan import describe_bindings
from .plan import describe_sources


@click.command()
@click.option(
    "--prune", is_flag=True, help="Remove bindings that the code does not have."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask before removing.")
@click.option(
    "--sql",
    is_flag=True,
    help="On a database, only print the SQL that creates tables, queues and bindings.",
)
@with_consumers
def declare(app: AppConsumers, prune: bool, yes: bool, sql: bool) -> None:
    """Declare exchanges, queues and bindings on the broker.

    The command does so with any value of 'QCONSUME_DECLARE', a setting of workers and
    publishers. Existing exchanges and queues are not changed. With 'passive' or
    'never', the command also declares the queues for delayed messages; with 'auto',
    workers and publishers declare these queues at the first use.
    """
    check_shared(app, "declare queues")
    if sql:
        for statement in app.broker.list_ddl():
            click.echo(f"{statement};\n")
        return
    settings = dataclasses.replace(app.settings, declare="auto")
    with contextlib.closing(open_broker(settings, app.topology)) as broker:
        broker.declare()
        if app.settings.declare != "auto":
            broker.declare_delays()
        for queue in app.topology.queues:
            click.echo(_describe_queue(queue, broker))
        if prune:
            _prune(broker, yes)


def _describe_queue(queue: QueuePlan, broker: Broker) -> str:
    if queue.given is not None:
        return f"{queue.consumer}: {queue.name}, declared elsewhere, used as given"
    sources = describe_sources(queue, broker.capabilities)
    companions = ", ".join(broker.companion_names(queue))
    return f"{queue.consumer}: {queue.name} (gets {sources}), {companions}"


def _prune(broker: Broker, yes: bool) -> None:
    stale = broker.stale_bindings()
    if not stale:
        click.echo("There are no stale bindings.")
        return
    for line in _describe_bindings(stale):
        click.echo(line)
    number = f"{len(stale)} stale binding{'s' if len(stale) > 1 else ''}"
    if not yes:
        click.confirm(f"Remove {number}?", abort=True)
    broker.unbind(stale)
    click.echo(f"Removed {number}.")


def _describe_bindings(bindings: Sequence[Binding]) -> list[str]:
    return [
        f"stale: {binding.queue} gets {describe_bindings([binding])}, which no consumer"
        " asks for"
        for binding in bindings
    ]
