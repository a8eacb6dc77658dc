"""Command ``flask qconsume plan``: shows what is declared and guaranteed."""

from __future__ import annotations

from collections.abc import Iterable

import click
from flask import current_app

from ..broker.capabilities import Capabilities
from ..broker.checks import find_unsupported
from ..broker.given_queues import list_effects
from ..broker.topology import Binding
from ..broker.topology import QueuePlan
from ..databases.engine_checks import list_engine_problems
from ..errors import BrokerError
from ..errors import UnsupportedByBroker
from ..extension import AppConsumers
from ..registration.consumer import Consumer
from ..text import escape
from ..text import pluralize
from .context import with_consumers
from .descriptions import describe_retries
from .descriptions import get_handler_name
from .durations import format_duration

Lines = Iterable[tuple[str, str]]

_WIDTH_IN_CHARACTERS = 88
_NAME_WIDTH_IN_CHARACTERS = 14


@click.command()
@with_consumers
def plan(app: AppConsumers) -> None:
    """Show what is declared on the broker, and what the broker guarantees.

    The exit code is 1 if a consumer needs something that the broker cannot do. The
    broker does not need to run; if it does, the command also shows bindings that are
    left over from earlier code.
    """
    capabilities = app.broker.capabilities
    consumers = app.consumers.values()
    click.echo(f"{capabilities.title} ({strip_credentials(app.settings.broker_url)})")
    for consumer in consumers:
        _echo_section(
            f"{consumer.name}  {get_handler_name(consumer.handler)}",
            _describe_consumer(app, consumer),
        )
    _echo_section(f"How {capabilities.broker} does it", _describe_broker(capabilities))
    for text in _list_caveats(app):
        _echo_section("Limits of this server", [("warning", text)])
    for text in _list_engine_problems(app):
        _echo_section("Databases of the app", [("warning", text)])
    if capabilities.shared and capabilities.bindings:
        _echo_section("Stale bindings", _describe_stale_bindings(app))
    problems = find_unsupported(consumers, capabilities)
    if problems:
        raise UnsupportedByBroker("\n".join(problems))


def strip_credentials(url: str) -> str:
    """Return a broker's URL without user, password and options, to be shown."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def describe_sources(queue: QueuePlan, capabilities: Capabilities) -> str:
    """Describe where a queue's messages come from: exchanges, or topics."""
    if capabilities.exchanges:
        return describe_bindings(queue.bindings)
    topics = [f"'{queue.prefix}{binding.routing_key}'" for binding in queue.bindings]
    noun = "topic" if len(topics) == 1 else "topics"
    return f"the {noun} {', '.join(topics)}" if topics else ""


def describe_bindings(bindings: Iterable[Binding]) -> str:
    """Describe the bindings of a queue in words."""
    by_exchange: dict[str, list[str]] = {}
    for binding in bindings:
        by_exchange.setdefault(binding.exchange, []).append(f"'{binding.routing_key}'")
    return "; ".join(
        f"{', '.join(keys)} from the exchange '{exchange}'"
        for exchange, keys in by_exchange.items()
    )


def _echo_section(title: str, lines: Lines) -> None:
    click.echo()
    click.echo(title)
    for name, text in lines:
        click.echo(_wrap_line(name, text))


def _wrap_line(name: str, text: str) -> str:
    first = f"  {name:<{_NAME_WIDTH_IN_CHARACTERS - 1}} "
    return click.wrap_text(
        text,
        _WIDTH_IN_CHARACTERS,
        initial_indent=first,
        subsequent_indent=" " * len(first),
    )


def _describe_consumer(app: AppConsumers, consumer: Consumer) -> Lines:
    queue = app.topology.queue(consumer.queue)
    settings = app.settings
    limit = f"{settings.delivery_limit} crashes of its process"
    yield "queue", _describe_queue(queue, app.broker.capabilities)
    suspects, dead = app.broker.companion_names(queue)
    sources = describe_sources(queue, app.broker.capabilities)
    yield "gets", sources or "messages that are published to it by its name"
    if app.broker.capabilities.survives_worker_death:
        yield "suspects", f"{suspects}, handled one by one"
    yield (
        "handles",
        f"{consumer.concurrency} at once in each process, {consumer.prefetch} fetched,"
        f" each for at most {format_duration(consumer.timeout)}",
    )
    if consumer.ordering != "none":
        yield "ordering", _describe_ordering(consumer)
    yield "retries", describe_retries(consumer.retry)
    yield (
        "dead letters",
        f"{dead}, kept {format_duration(settings.dead_letter_ttl)};"
        f" after {pluralize(consumer.retry.max_attempts, 'attempt')}"
        + (f" or {limit}" if app.broker.capabilities.survives_worker_death else ""),
    )
    if getattr(queue.given, "max_priority", None):
        yield "priorities", app.broker.capabilities.priority
    for effect in list_effects(queue.given, app.broker.capabilities):
        yield "as given", effect
    if not consumer.enabled:
        yield (
            "disabled",
            "by configuration; its queue is declared and receives messages",
        )


def _describe_ordering(consumer: Consumer) -> str:
    return (
        f"one at a time for each {consumer.ordering}; a retry holds back the messages"
        " behind it"
    )


def _describe_queue(queue: QueuePlan, capabilities: Capabilities) -> str:
    if queue.given is not None:
        return f"{queue.name}, declared elsewhere, used as given"
    # Only RabbitMQ has types of queues; its record names them.
    kind = f", {queue.type}" if queue.type in capabilities.kind else ""
    return f"{queue.name}{kind}"


def _describe_broker(capabilities: Capabilities) -> Lines:
    facts = list(capabilities.facts)
    yield from ((fact.short, fact.value) for fact in facts if fact.in_words)
    missing = [fact.short for fact in facts if fact.value is False]
    if missing:
        yield "without", "; ".join(missing)
    yield "guarantee", capabilities.guarantee


def _list_caveats(app: AppConsumers) -> list[str]:
    """List settings of the server that may lose messages; none without an answer."""
    try:
        return app.broker.caveats()
    except BrokerError:
        return []


def _list_engine_problems(app: AppConsumers) -> list[str]:
    enabled = [consumer for consumer in app.consumers.values() if consumer.enabled]
    concurrency = sum(consumer.concurrency for consumer in enabled)
    return list_engine_problems(current_app, concurrency)


def _describe_stale_bindings(app: AppConsumers) -> Lines:
    try:
        stale = app.broker.stale_bindings()
    except BrokerError as error:
        yield "unknown", f"the broker did not answer: {escape(error)}"
        return
    for binding in stale:
        yield binding.queue, f"still gets {describe_bindings([binding])}"
    if stale:
        yield "remedy", "flask qconsume declare --prune"
    else:
        yield "none", "no binding is left over from earlier code"
