"""Checks of consumers and messages against the broker's capabilities.

They run at a worker's start and before each publish, before any message can be lost by
an unsupported option.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator

from ..errors import PublishError
from ..errors import UnsupportedByBroker
from ..message import Outgoing
from ..registration.consumer import Consumer
from ..settings import FILE_BROKER
from ..text import quote
from .base import Broker
from .capabilities import Capabilities
from .given_queues import describe
from .given_queues import find_unsupported_traits


def find_unsupported(
    consumers: Iterable[Consumer], capabilities: Capabilities
) -> list[str]:
    """Describe, in sentences, options of consumers that the broker does not support."""
    return [
        sentence
        for consumer in consumers
        for sentence in (
            *_find_long_delays(consumer, capabilities),
            *_find_queue_traits(consumer, capabilities),
            *_find_priorities(consumer, capabilities),
            *_find_orderings(consumer, capabilities),
        )
    ]


def check_consumers(consumers: Iterable[Consumer], capabilities: Capabilities) -> None:
    """Refuse consumers with options that the broker does not support.

    :raises UnsupportedByBroker: with a sentence for each such option.
    """
    sentences = find_unsupported(consumers, capabilities)
    if sentences:
        raise UnsupportedByBroker(" ".join(sentences))


def check_messages(
    messages: Iterable[Outgoing], exchange: str, capabilities: Capabilities
) -> None:
    """Refuse messages with options that the broker does not support.

    :param exchange: The app's own exchange.
    :raises UnsupportedByBroker: for the first such option.
    """
    for message in messages:
        for sentence in _find_unsupported_options(message, exchange, capabilities):
            raise UnsupportedByBroker(sentence)


def make_no_consumer_error(broker: Broker) -> PublishError:
    """Create the error for publishing to ``memory://`` without a worker."""
    return PublishError(
        explain_in_process_broker(
            "publish a message", broker, "and nothing consumes in this one."
        )
        + " Or consume beside the web server: 'flask qconsume run --web HOST:PORT'. A"
        " test that starts its worker later sets 'TESTING'."
    )


def explain_in_process_broker(what: str, broker: Broker, why: str) -> str:
    """Explain why an action fails with ``memory://``, and what to do.

    :param what: The action, such as "publish a message".
    :param why: End of the error's first sentence, such as "so no other process can
        share its messages."
    """
    return (
        f"Cannot {what}: '{broker.settings.broker_url}' is a broker within one process"
        f" ({broker.capabilities.broker}), {why} Set 'QCONSUME_BROKER_URL' to a broker"
        f" that processes share: {FILE_BROKER}, or a server, such as"
        " 'redis://localhost/0'."
    )


def longest_delay(consumer: Consumer) -> float:
    """Return the longest delay of a retry policy in seconds; 0 without retries."""
    policy = consumer.retry
    if policy.max_attempts < 2:
        return 0.0
    # Delays do not shrink from one attempt to the next.
    return policy.longest_delay(policy.max_attempts - 1)


def _find_long_delays(consumer: Consumer, capabilities: Capabilities) -> Iterator[str]:
    longest = longest_delay(consumer)
    if longest > capabilities.max_delay:
        yield (
            f"The retry policy of the consumer '{consumer.name}' waits up to"
            f" {longest:g} s, and {capabilities.broker} can hold a message back for"
            f" {capabilities.max_delay:g} s at the most. Lower its 'max_delay'."
        )


def _find_queue_traits(consumer: Consumer, capabilities: Capabilities) -> Iterator[str]:
    for problem in find_unsupported_traits(consumer.given, capabilities):
        yield f"The kombu.Queue of the consumer '{consumer.name}' {problem}"


def _find_priorities(consumer: Consumer, capabilities: Capabilities) -> Iterator[str]:
    if consumer.given is None or capabilities.priorities:
        return
    description = describe(consumer.given)
    # A classic queue that the app gives may have priorities although ours have none.
    unknown = not capabilities.kind or description.type in capabilities.kind
    if description.arguments.get("x-max-priority") and unknown:
        yield (
            f"The kombu.Queue of the consumer '{consumer.name}' has a 'max_priority',"
            f" which cannot be kept. Priorities are {capabilities.priority}."
        )


def _find_orderings(consumer: Consumer, capabilities: Capabilities) -> Iterator[str]:
    if consumer.ordering not in capabilities.orderings:
        supported_orderings = " or ".join(
            f"'{name}'" for name in capabilities.orderings
        )
        yield (
            f"The consumer '{consumer.name}' has the ordering '{consumer.ordering}',"
            f" which {capabilities.broker} cannot keep. Leave 'ordering' out, or make"
            f" it {supported_orderings}."
        )


def _find_unsupported_options(
    message: Outgoing, exchange: str, capabilities: Capabilities
) -> Iterator[str]:
    broker, longest = capabilities.broker, capabilities.max_delay
    if message.priority is not None and not capabilities.priorities:
        yield (
            f"{capabilities.title}: 'priority={message.priority}' cannot be kept."
            f" Priorities are {capabilities.priority}. Leave it out."
        )
    if message.tombstone and not capabilities.tombstones:
        yield (
            f"{broker} has no tombstones: its messages are not kept by key. Publish a"
            " body that says that the key is gone."
        )
    if message.exchange not in ("", exchange) and not capabilities.exchanges:
        yield (
            f"{broker} has no exchange {quote(message.exchange)}, nor any other than"
            " the app's own. Leave 'exchange' out."
        )
    if message.delay > longest:
        yield (
            f"A delay of {message.delay:g} s is longer than {broker} can hold a message"
            f" back, {longest:g} s. Leave 'delay' out, or make it shorter."
        )
    if message.delay and message.exchange and not capabilities.delayed_publish:
        yield (
            f"{broker} cannot delay what is published. Leave 'delay' out, or publish to"
            " a queue by its name with exchange=''."
        )
