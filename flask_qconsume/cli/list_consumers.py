"""``flask qconsume list``: the app's consumers in a table."""

from __future__ import annotations

from collections.abc import Callable

import click

from ..extension import AppConsumers
from ..registration.consumer import Consumer
from ..registration.missing import explain_no_consumers
from .context import with_consumers
from .descriptions import handler_name
from .descriptions import retry_in_short
from .descriptions import routing_keys
from .table import table

_HEADERS = ("Consumer", "Queue", "Routing keys", "Concurrency", "Retry", "Handler")

#: What the rows can be sorted by; ``match`` is the order of registration.
_SORTS: dict[str, Callable[[Consumer], object]] = {
    "consumer": lambda consumer: consumer.name,
    "queue": lambda consumer: consumer.queue,
    "routing-keys": lambda consumer: consumer.routing_keys,
    "concurrency": lambda consumer: consumer.concurrency,
    "retry": lambda consumer: consumer.retry.max_attempts,
    "handler": lambda consumer: handler_name(consumer.handler),
    "match": lambda consumer: 0,
}


@click.command("list", short_help="Show the consumers of the app.")
@click.option(
    "--sort",
    "-s",
    type=click.Choice(list(_SORTS)),
    default="consumer",
    show_default=True,
    help="What to sort by. 'match' is the order in which they were registered.",
)
@with_consumers
def list_consumers(app: AppConsumers, sort: str) -> None:
    """Show the consumers of the app: their queues, settings and handlers."""
    found = sorted(app.consumers.values(), key=_SORTS[sort])  # type: ignore[arg-type]
    if not found:
        click.echo(f"Nothing to list: {explain_no_consumers(app.consumers)}")
        return
    click.echo(table(_HEADERS, [_row(consumer) for consumer in found]))


def _row(consumer: Consumer) -> list[str]:
    return [
        consumer.name,
        consumer.queue,
        routing_keys(consumer),
        f"{consumer.concurrency}" if consumer.enabled else "disabled",
        retry_in_short(consumer.retry),
        handler_name(consumer.handler),
    ]
