"""The types and arguments of given queues: what each changes, and who can keep it.

A :class:`kombu.Queue` says more than a name. Each thing that it may say has a row here:
it is honoured, and ``plan`` tells what follows from it, or the consumer is refused.
Nothing is dropped silently. Kombu itself is not needed to read one.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from .capabilities import Capabilities

#: Attributes of a kombu.Queue, and the arguments that kombu makes of them.
_ATTRIBUTES = {
    "expires": "x-expires",
    "message_ttl": "x-message-ttl",
    "max_length": "x-max-length",
    "max_length_bytes": "x-max-length-bytes",
    "max_priority": "x-max-priority",
}

#: Arguments that say how RabbitMQ stores a queue, and nothing else.
_STORAGE = {
    "x-initial-cluster-size",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-queue-leader-locator",
    "x-queue-mode",
    "x-queue-version",
    "x-quorum-initial-group-size",
}
_DEAD_LETTERING = {
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
}
_KNOWN = {
    *_ATTRIBUTES.values(),
    *_STORAGE,
    *_DEAD_LETTERING,
    "x-delivery-limit",
    "x-overflow",
    "x-queue-type",
    "x-single-active-consumer",
}


@dataclass(frozen=True)
class Description:
    """A :class:`kombu.Queue`, its attributes written as arguments."""

    queue: t.Any
    arguments: Mapping[str, t.Any]
    consumer_arguments: Mapping[str, t.Any]

    @property
    def type(self) -> str:
        """``"classic"``, ``"quorum"``, ``"stream"``."""
        return str(self.arguments.get("x-queue-type", "classic"))

    @property
    def bounded(self) -> bool:
        """Whether its length is limited."""
        return bool({"x-max-length", "x-max-length-bytes"} & self.arguments.keys())

    @property
    def drops(self) -> bool:
        """Whether a bound is kept by dropping what is oldest."""
        return str(self.arguments.get("x-overflow", "drop-head")) == "drop-head"

    @property
    def bindings(self) -> Iterator[tuple[t.Any, t.Any]]:
        """Exchanges, and the arguments of the bindings to them."""
        if self.queue.exchange:
            yield self.queue.exchange, self.queue.binding_arguments
        for binding in self.queue.bindings:
            yield binding.exchange, binding.arguments


class Trait(t.NamedTuple):
    """One thing that a queue may have."""

    #: As its owner writes it.
    name: str
    is_set: Callable[[Description], t.Any]
    #: What follows from it.
    effect: str
    #: What to do in its place, where no broker can keep it for a consumer of ours.
    instead: str = ""
    #: Whether a broker that does not know it may leave it out: no consumer notices.
    neutral: bool = False
    #: Whether messages may go or be late by it, so that a worker's start warns.
    warns: bool = True


TRAITS = (
    Trait(
        "'x-queue-type': 'stream'",
        lambda d: d.type == "stream",
        "an acknowledgement removes nothing from a stream, and nothing is given back",
        "Consume a quorum or classic queue that is bound to the same exchange, or read"
        " the stream by a client of streams",
    ),
    Trait(
        "'no_ack'",
        lambda d: d.queue.no_ack,
        "the broker forgets each message as soon as it is sent, so a crash loses what"
        " was fetched",
        "Leave it out: a message is acknowledged once it is handled",
    ),
    Trait(
        "'x-queue-type': 'quorum' with 'exclusive', 'auto_delete' or 'durable=False'",
        lambda d: d.type == "quorum" and _is_passing(d.queue),
        "quorum queues are durable and shared",
        "Make it a classic queue by 'x-queue-type', or leave the others out",
    ),
    Trait(
        "'exclusive'",
        lambda d: d.queue.exclusive,
        "one process alone consumes it, and it ends with the connection of that"
        " process, with all that waits in it; a retry that is due meanwhile waits until"
        " the queue is there again",
    ),
    Trait(
        "'auto_delete'",
        lambda d: d.queue.auto_delete and not d.queue.exclusive,
        "the broker deletes it, with all that waits in it, when its last consumer"
        " leaves, be it by a stop or a lost connection; a retry that is due meanwhile"
        " waits until the queue is there again",
    ),
    Trait(
        "'durable=False'",
        lambda d: not d.queue.durable and not d.queue.exclusive,
        "neither it nor its messages outlive a restart of the broker",
        neutral=True,
    ),
    Trait(
        "'x-single-active-consumer'",
        lambda d: d.arguments.get("x-single-active-consumer"),
        "one process at a time gets its messages; the others wait until that one ends",
        warns=False,
    ),
    Trait(
        "'x-priority' of the consumer",
        lambda d: "x-priority" in d.consumer_arguments,
        "consumers of a higher priority come first; this one may get nothing meanwhile",
        warns=False,
    ),
    Trait(
        "other consumer arguments",
        lambda d: d.consumer_arguments.keys() - {"x-priority"},
        "they go to the broker with the consumer of this queue, and not with that of"
        " its suspects",
        warns=False,
    ),
    Trait(
        "'x-message-ttl'",
        lambda d: "x-message-ttl" in d.arguments,
        "the broker removes what waits for longer, without a dead letter of ours; it"
        " goes to the queue's own dead-letter exchange, if there is one",
    ),
    Trait(
        "'x-expires'",
        lambda d: "x-expires" in d.arguments,
        "the broker deletes it, with all that waits in it, once it had no consumer for"
        " so long",
    ),
    Trait(
        "'x-max-length' or 'x-max-length-bytes'",
        lambda d: d.bounded and d.drops,
        "a full queue removes its oldest messages, confirmed ones too, without a dead"
        " letter of ours; they go to the queue's own dead-letter exchange, if there is"
        " one. 'x-overflow': 'reject-publish' refuses new ones instead",
    ),
    Trait(
        "a bound with 'x-overflow': 'reject-publish'",
        lambda d: d.bounded and not d.drops,
        "a full queue refuses what is published, and retries that are due: each is"
        " tried again after three minutes, which is set on the broker by"
        " 'dead_letter_worker_publisher_confirm_timeout'",
    ),
    Trait(
        "'x-delivery-limit'",
        lambda d: "x-delivery-limit" in d.arguments,
        "the broker removes a message after so many deliveries, of which stops and lost"
        " connections are some, without a dead letter of ours",
    ),
    Trait(
        "'x-queue-type': 'quorum' without 'x-delivery-limit'",
        lambda d: d.type == "quorum" and "x-delivery-limit" not in d.arguments,
        "RabbitMQ 4 removes a message after 20 deliveries, of which stops and lost"
        " connections are some; earlier versions have no limit",
        neutral=True,
    ),
    Trait(
        "'x-dead-letter-exchange'",
        lambda d: _DEAD_LETTERING & d.arguments.keys(),
        "what the broker itself removes goes there; what a handler rejects is a dead"
        " letter of ours",
        warns=False,
    ),
    Trait(
        "'max_priority'",
        lambda d: "x-max-priority" in d.arguments,
        "higher priorities come first, where the broker knows priorities",
        # There is a record of its own for these.
        neutral=True,
        warns=False,
    ),
    Trait(
        "how it is stored ('x-queue-mode', 'x-queue-leader-locator', …)",
        lambda d: _STORAGE & d.arguments.keys(),
        "nothing for a consumer",
        neutral=True,
        warns=False,
    ),
    Trait(
        "an exchange that is neither 'direct' nor 'topic'",
        lambda d: any(e.type not in {"direct", "topic"} for e, _ in d.bindings),
        "the broker routes as that type does",
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
        lambda d: d.arguments.keys() - _KNOWN,
        "they go to the broker as they are",
        warns=False,
    ),
)


def describe(queue: t.Any) -> Description:
    """What a :class:`kombu.Queue` says."""
    arguments = dict(queue.queue_arguments or {})
    for attribute, argument in _ATTRIBUTES.items():
        value = getattr(queue, attribute, None)
        if value is not None:
            arguments[argument] = value
    return Description(queue, arguments, queue.consumer_arguments or {})


def find_traits(queue: t.Any) -> list[Trait]:
    """What a given queue has; nothing for a queue of ours, which is ``None``."""
    if queue is None:
        return []
    description = describe(queue)
    return [trait for trait in TRAITS if trait.is_set(description)]


def find_unsupported_traits(queue: t.Any, capabilities: Capabilities) -> Iterator[str]:
    """What a broker cannot keep of a given queue, and what to do, in half sentences."""
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
    """What follows from what a broker keeps of a given queue.

    :param warns: Only that by which messages may go, or be late.
    """
    if not capabilities.queue_arguments:
        return []
    return [
        f"{trait.name}: {trait.effect}"
        for trait in find_traits(queue)
        if not trait.instead and (trait.warns or not warns)
    ]


def may_starve(queue: t.Any) -> bool:
    """Whether its consumer may rightly get nothing although messages wait."""
    if queue is None:
        return False
    description = describe(queue)
    return bool(
        description.arguments.get("x-single-active-consumer")
        or "x-priority" in description.consumer_arguments
    )


def _is_passing(queue: t.Any) -> bool:
    return bool(queue.exclusive or queue.auto_delete or not queue.durable)
