"""Descriptions of consumers and retry policies, for ``list`` and ``plan``. No I/O."""

from __future__ import annotations

import functools
import typing as t

from ..registration.consumer import Consumer
from ..retry import ErrorClass
from ..retry import RetryPolicy
from .durations import format_duration

#: Number of delays that are listed one by one.
_MAX_DELAYS_LISTED = 8


def get_handler_name(handler: t.Any) -> str:
    """Return a handler's module and name: ``shop.orders:bill``."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}:{named.__qualname__}"


def format_routing_keys(consumer: Consumer) -> str:
    """List the routing keys of a consumer's queue."""
    if consumer.given is not None:
        return "(as given)"
    return ", ".join(consumer.routing_keys)


def summarize_retry(policy: RetryPolicy) -> str:
    """Describe a retry policy in a few words, for a table."""
    retries = policy.max_attempts - 1
    if not retries:
        return "none"
    first, last = _format_shortest_delays(policy, 1, retries)
    return f"{policy.max_attempts} attempts, {first}" + (
        "" if first == last else f" to {last}"
    )


def describe_retries(policy: RetryPolicy) -> str:
    """Describe a retry policy in words: its delays, and how it ends."""
    retries = policy.max_attempts - 1
    if not retries:
        return "none: a failed message becomes a dead letter at once"
    listed = range(1, min(retries, _MAX_DELAYS_LISTED) + 1)
    text = ", ".join(_format_shortest_delays(policy, *listed))
    if retries > _MAX_DELAYS_LISTED:
        (last,) = _format_shortest_delays(policy, retries)
        text += f", … up to {last}, {retries} in all"
    longer = f" (each up to {policy.jitter:.0%} longer)" if policy.jitter else ""
    return f"{text}{longer}, then a dead letter{_describe_errors(policy)}"


def _format_shortest_delays(policy: RetryPolicy, *attempts: int) -> list[str]:
    """Return the shortest delays after the given attempts, as a text.

    The caller gives a few of the attempts, since a policy may have millions.
    """
    return [format_duration(policy.shortest_delay(attempt)) for attempt in attempts]


def _describe_errors(policy: RetryPolicy) -> str:
    parts = []
    if policy.retry_on != (Exception,):
        parts.append(f"only {_join_names(policy.retry_on)} retried")
    if policy.give_up_on:
        parts.append(f"{_join_names(policy.give_up_on)} never retried")
    return f" ({', '.join(parts)})" if parts else ""


def _join_names(errors: t.Iterable[ErrorClass]) -> str:
    return ", ".join(error.__name__ for error in errors)
