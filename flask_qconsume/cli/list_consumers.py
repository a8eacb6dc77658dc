"""Command ``flask qconsume list``: shows the app's consumers in a table."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import click

from ..extension import AppConsumers
from ..registration.consumer import Consumer
from ..registration.missing import explain_no_consumers
from .context import with_consumers
from .descriptions import format_routing_keys
from .descriptions import get_handler_name
from .descriptions import summarize_retry
from .table import format_table

_HEADERS = ("Consumer", "Queue", "Routing keys", "Concurrency", "Retry", "Handler")

#: Sort keys of the rows; ``match`` keeps the order of registration.
_SORT_KEYS: dict[str, Callable[[Consumer], t.Any]] = {
    "consumer": lambda consumer: consumer.name,
    "queue": lambda consumer: consumer.queue,
    "routing-keys": lambda consumer: consumer.routing_keys,
    "concurrency": lambda consumer: consumer.concurrency,
    "retry": lambda consumer: consumer.retry.max_attempts,
    "handler": lambda consumer: get_handler_name(consumer.handler),
    "match": lambda consumer: 0,
}


@click.command("list", short_help="Show the consumers of the app.")
@click.option(
    "--sort",
    "-s",
    type=click.Choice(list(_SORT_KEYS)),
    default="consumer",
    show_default=True,
    help="Column to sort by. 'match' is the order of registration.",
)
@with_consumers
def list_consumers(app: AppConsumers, sort: str) -> None:
    """Show the consumers of the app: their queues, settings and handlers."""
    consumers = sorted(app.consumers.values(), key=_SORT_KEYS[sort])
    if not consumers:
        click.echo(f"Nothing to list: {explain_no_consumers(app.consumers)}")
        return
    click.echo(
        format_table(_HEADERS, [_format_row(consumer) for consumer in consumers])
    )


def _format_row(consumer: Consumer) -> list[str]:
    return [
        consumer.name,
        consumer.queue,
        format_routing_keys(consumer),
        f"{consumer.concurrency}" if consumer.enabled else "disabled",
        summarize_retry(consumer.retry),
        get_handler_name(consumer.handler),
    ]
