"""Options of given queues, that is, of a :class:`kombu.Queue` passed to a consumer.

Each option has a row here with its effect and the brokers that support it. It is either
kept, and ``plan`` describes its effect, or the consumer is refused. No option is
dropped silently. This module reads queues without importing kombu.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from .capabilities import Capabilities

#: Attributes of a kombu.Queue, and the arguments that kombu turns them into.
_ARGUMENTS_BY_ATTRIBUTE = {
    "expires": "x-expires",
    "message_ttl": "x-message-ttl",
    "max_length": "x-max-length",
    "max_length_bytes": "x-max-length-bytes",
    "max_priority": "x-max-priority",
}

#: Arguments that change only how RabbitMQ stores a queue.
_STORAGE_ARGUMENTS = {
    "x-initial-cluster-size",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-queue-leader-locator",
    "x-queue-mode",
    "x-queue-version",
    "x-quorum-initial-group-size",
}
_DEAD_LETTER_ARGUMENTS = {
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
}
_KNOWN_ARGUMENTS = {
    *_ARGUMENTS_BY_ATTRIBUTE.values(),
    *_STORAGE_ARGUMENTS,
    *_DEAD_LETTER_ARGUMENTS,
    "x-delivery-limit",
    "x-overflow",
    "x-queue-type",
    "x-single-active-consumer",
}


@dataclass(frozen=True)
class Description:
    """A :class:`kombu.Queue`, and its options written as AMQP arguments."""

    queue: t.Any
    arguments: Mapping[str, t.Any]
    consumer_arguments: Mapping[str, t.Any]

    @property
    def type(self) -> str:
        """``"classic"``, ``"quorum"`` or ``"stream"``."""
        return str(self.arguments.get("x-queue-type", "classic"))

    @property
    def bounded(self) -> bool:
        """True if the queue's length is limited."""
        return bool({"x-max-length", "x-max-length-bytes"} & self.arguments.keys())

    @property
    def drops(self) -> bool:
        """True if a full queue drops its oldest messages."""
        return str(self.arguments.get("x-overflow", "drop-head")) == "drop-head"

    @property
    def bindings(self) -> Iterator[tuple[t.Any, t.Any]]:
        """The exchanges of the queue's bindings, each with the binding's arguments."""
        if self.queue.exchange:
            yield self.queue.exchange, self.queue.binding_arguments
        for binding in self.queue.bindings:
            yield binding.exchange, binding.arguments


class Trait(t.NamedTuple):
    """An option of a kombu.Queue: its effect, and the brokers that support it."""

    #: The option, as it is written in code.
    name: str
    is_set: Callable[[Description], t.Any]
    #: The option's effect, as a part of a sentence.
    effect: str
    #: What to do instead, if no broker can keep the option for our consumers.
    instead: str = ""
    #: True if a broker may ignore the option, since no consumer notices.
    neutral: bool = False
    #: True if the option may lose or delay messages; a worker's start warns of it.
    warns: bool = True


TRAITS = (
    Trait(
        "'x-queue-type': 'stream'",
        lambda d: d.type == "stream",
        "an acknowledgement does not remove a message from a stream, and a message"
        " cannot be returned to it",
        "Consume a quorum or classic queue that is bound to the same exchange, or read"
        " the stream by a client of streams",
    ),
    Trait(
        "'no_ack'",
        lambda d: d.queue.no_ack,
        "the broker forgets each message as soon as it is sent, so a crash loses the"
        " fetched messages",
        "Leave it out: a message is acknowledged once it is handled",
    ),
    Trait(
        "'x-queue-type': 'quorum' with 'exclusive', 'auto_delete' or 'durable=False'",
        lambda d: d.type == "quorum" and _is_temporary(d.queue),
        "quorum queues are durable and shared",
        "Make it a classic queue by 'x-queue-type', or leave those options out",
    ),
    Trait(
        "'exclusive'",
        lambda d: d.queue.exclusive,
        "only one process can consume it, and the queue is deleted with its messages"
        " when the connection of that process ends; a retry that is due meanwhile waits"
        " until the queue exists again",
    ),
    Trait(
        "'auto_delete'",
        lambda d: d.queue.auto_delete and not d.queue.exclusive,
        "the broker deletes it with its messages when its last consumer leaves, by a"
        " stop or by a lost connection; a retry that is due meanwhile waits until the"
        " queue exists again",
    ),
    Trait(
        "'durable=False'",
        lambda d: not d.queue.durable and not d.queue.exclusive,
        "the queue and its messages are lost when the broker restarts",
        neutral=True,
    ),
    Trait(
        "'x-single-active-consumer'",
        lambda d: d.arguments.get("x-single-active-consumer"),
        "one process at a time gets its messages; other processes wait until it ends",
        warns=False,
    ),
    Trait(
        "'x-priority' of the consumer",
        lambda d: "x-priority" in d.consumer_arguments,
        "consumers of a higher priority come first; meanwhile this consumer may get no"
        " messages",
        warns=False,
    ),
    Trait(
        "other consumer arguments",
        lambda d: d.consumer_arguments.keys() - {"x-priority"},
        "they are sent with the consumer of this queue, but not with the consumer of"
        " its suspects",
        warns=False,
    ),
    Trait(
        "'x-message-ttl'",
        lambda d: "x-message-ttl" in d.arguments,
        "the broker removes messages that wait for longer, without a dead letter of"
        " ours; if the queue has a dead-letter exchange, they go there",
    ),
    Trait(
        "'x-expires'",
        lambda d: "x-expires" in d.arguments,
        "the broker deletes it with its messages if it has no consumer for that time",
    ),
    Trait(
        "'x-max-length' or 'x-max-length-bytes'",
        lambda d: d.bounded and d.drops,
        "a full queue removes its oldest messages, confirmed ones included, without a"
        " dead letter of ours; if the queue has a dead-letter exchange, they go there."
        " 'x-overflow': 'reject-publish' refuses new messages instead",
    ),
    Trait(
        "a bound with 'x-overflow': 'reject-publish'",
        lambda d: d.bounded and not d.drops,
        "a full queue refuses new messages, and retries that are due. The broker tries"
        " to move a refused retry again after three minutes, or as its setting"
        " 'dead_letter_worker_publisher_confirm_timeout' says",
    ),
    Trait(
        "'x-delivery-limit'",
        lambda d: "x-delivery-limit" in d.arguments,
        "the broker removes a message after this number of deliveries, without a dead"
        " letter of ours; deliveries before a stop or a lost connection count",
    ),
    Trait(
        "'x-queue-type': 'quorum' without 'x-delivery-limit'",
        lambda d: d.type == "quorum" and "x-delivery-limit" not in d.arguments,
        "RabbitMQ 4 removes a message after 20 deliveries, also if they ended with a"
        " stop or a lost connection; earlier versions have no limit",
        neutral=True,
    ),
    Trait(
        "'x-dead-letter-exchange'",
        lambda d: _DEAD_LETTER_ARGUMENTS & d.arguments.keys(),
        "messages that the broker removes go there; messages that a handler rejects"
        " become our dead letters",
        warns=False,
    ),
    Trait(
        "'max_priority'",
        lambda d: "x-max-priority" in d.arguments,
        "higher priorities come first, if the broker has priorities",
        # Broker.capabilities has a field for priorities.
        neutral=True,
        warns=False,
    ),
    Trait(
        "how it is stored ('x-queue-mode', 'x-queue-leader-locator', …)",
        lambda d: _STORAGE_ARGUMENTS & d.arguments.keys(),
        "it has no effect on consumers",
        neutral=True,
        warns=False,
    ),
    Trait(
        "an exchange that is neither 'direct' nor 'topic'",
        lambda d: any(e.type not in {"direct", "topic"} for e, _ in d.bindings),
        "the broker routes by that type's rules",
        warns=False,
    ),
    Trait(
        "arguments of bindings",
        lambda d: any(arguments for _, arguments in d.bindings),
        "the exchange routes by them",
        warns=False,
    ),
    Trait(
        "arguments of exchanges",
        lambda d: any(exchange.arguments for exchange, _ in d.bindings),
        "the broker declares the exchange with them",
        warns=False,
    ),
    Trait(
        "'on_declared'",
        lambda d: d.queue.on_declared,
        "it is called whenever a connection declares the queue",
        warns=False,
    ),
    Trait(
        "arguments of the broker's plugins, or of later versions",
        lambda d: d.arguments.keys() - _KNOWN_ARGUMENTS,
        "they are sent to the broker as they are",
        warns=False,
    ),
)


def describe(queue: t.Any) -> Description:
    """Convert a :class:`kombu.Queue` to its description."""
    arguments = dict(queue.queue_arguments or {})
    for attribute, argument in _ARGUMENTS_BY_ATTRIBUTE.items():
        value = getattr(queue, attribute, None)
        if value is not None:
            arguments[argument] = value
    return Description(queue, arguments, queue.consumer_arguments or {})


def find_traits(queue: t.Any) -> list[Trait]:
    """List the known options that a :class:`kombu.Queue` sets; empty for ``None``."""
    if queue is None:
        return []
    description = describe(queue)
    return [trait for trait in TRAITS if trait.is_set(description)]


def find_unsupported_traits(queue: t.Any, capabilities: Capabilities) -> Iterator[str]:
    """Describe options that the broker lacks, such as ``has 'no_ack': …``."""
    for trait in find_traits(queue):
        if trait.instead:
            yield f"has {trait.name}: {trait.effect}. {trait.instead}."
        elif not (capabilities.queue_arguments or trait.neutral):
            yield (
                f"has {trait.name}, which {capabilities.broker} does not know: it would"
                " have no effect. Leave it out."
            )


def list_effects(
    queue: t.Any, capabilities: Capabilities, *, warns: bool = False
) -> list[str]:
    """Describe the effects of the options that a :class:`kombu.Queue` sets.

    :param warns: Whether to list only options that may lose or delay messages.
    """
    if not capabilities.queue_arguments:
        return []
    return [
        f"{trait.name}: {trait.effect}"
        for trait in find_traits(queue)
        if not trait.instead and (trait.warns or not warns)
    ]


def may_starve(queue: t.Any) -> bool:
    """Return whether a healthy consumer of a queue may get none of its messages."""
    if queue is None:
        return False
    description = describe(queue)
    return bool(
        description.arguments.get("x-single-active-consumer")
        or "x-priority" in description.consumer_arguments
    )


def _is_temporary(queue: t.Any) -> bool:
    return bool(queue.exclusive or queue.auto_delete or not queue.durable)
