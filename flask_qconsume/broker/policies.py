"""Which retry policies a broker cannot keep: told before a message depends on it."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UnsupportedByBroker
from ..registration.consumer import Consumer
from .capabilities import Capabilities


def unkept(consumers: Iterable[Consumer], capabilities: Capabilities) -> list[str]:
    """What the broker cannot keep of the consumers' policies, in sentences."""
    return [
        f"The retry policy of the consumer '{consumer.name}' waits up to {longest:g} s,"
        f" and {capabilities.broker} can hold a message back for"
        f" {capabilities.max_delay:g} s at the most. Lower its 'max_delay'."
        for consumer in consumers
        if (longest := longest_delay(consumer)) > capabilities.max_delay
    ]


def check_policies(consumers: Iterable[Consumer], capabilities: Capabilities) -> None:
    """Refuse policies that the broker cannot keep.

    :raises UnsupportedByBroker: if there are any.
    """
    sentences = unkept(consumers, capabilities)
    if sentences:
        raise UnsupportedByBroker(" ".join(sentences))


def longest_delay(consumer: Consumer) -> float:
    """The longest delay that a consumer's policy asks for; 0 if it never retries."""
    policy = consumer.retry
    if policy.max_attempts < 2:
        return 0.0
    # Delays never shrink from one attempt to the next.
    return policy.delay(policy.max_attempts - 1, lambda: 0.0)
