"""Which exchanges, queues and bindings an app needs: computed, not declared here."""

from __future__ import annotations

import itertools
import typing as t
from dataclasses import dataclass

from ..registration.consumer import Consumer
from ..retry import RetryPolicy
from ..settings import Settings


@dataclass(frozen=True, order=True)
class Binding:
    """A queue takes from an exchange what matches a routing key."""

    queue: str
    exchange: str
    routing_key: str


@dataclass(frozen=True)
class QueuePlan:
    """One consumer's queue, and the two beside it."""

    name: str
    consumer: str
    #: ``"quorum"`` or ``"classic"``, where the broker knows the difference.
    type: str
    #: All of them, those of a given queue too.
    bindings: tuple[Binding, ...]
    #: A :class:`kombu.Queue` of somebody else's, used as given.
    given: t.Any = None
    #: ``"none"``, ``"key"`` or ``"partition"``: what its messages keep to.
    ordering: str = "none"
    #: The longest delays, in seconds, that its retry policy asks for.
    delays: tuple[float, ...] = ()
    #: What the topics begin with that its bindings mean, where routing keys are topics:
    #: the app's prefix; nothing for a given queue.
    prefix: str = ""

    @property
    def suspects(self) -> str:
        """The lane of messages that may have killed a process."""
        return f"{self.name}.suspects"

    @property
    def handled_queues(self) -> tuple[str, str]:
        """The queues whose messages are handled."""
        return self.name, self.suspects

    @property
    def dead(self) -> str:
        """Where its dead letters are kept."""
        return f"{self.name}.dead"


@dataclass(frozen=True)
class Topology:
    """All that one app needs on its broker."""

    #: The app's topic exchange, its prefix included.
    exchange: str
    queues: tuple[QueuePlan, ...]

    def queue(self, name: str) -> QueuePlan:
        """The plan of the queue with that name on the broker."""
        return next(queue for queue in self.queues if queue.name == name)

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """Every binding that the code asks for."""
        return tuple(binding for queue in self.queues for binding in queue.bindings)


def plan_topology(settings: Settings, consumers: t.Iterable[Consumer]) -> Topology:
    """The topology that these consumers need."""
    return Topology(
        exchange=settings.exchange,
        queues=tuple(_plan(settings, consumer) for consumer in consumers),
    )


def _plan(settings: Settings, consumer: Consumer) -> QueuePlan:
    return QueuePlan(
        name=consumer.queue,
        consumer=consumer.name,
        type=settings.queue_type,
        bindings=_bindings(settings, consumer),
        given=consumer.given,
        ordering=consumer.ordering,
        delays=_delays(consumer.retry),
        prefix="" if consumer.given is not None else settings.queue_prefix,
    )


def _delays(policy: RetryPolicy) -> tuple[float, ...]:
    """Return the longest delay after each attempt, equal ones once."""
    found = map(policy.longest_delay, range(1, policy.max_attempts))
    return tuple(dict.fromkeys(itertools.islice(found, 100)))


def _bindings(settings: Settings, consumer: Consumer) -> tuple[Binding, ...]:
    if consumer.given is not None:
        return _given_bindings(consumer.given)
    return tuple(
        Binding(consumer.queue, settings.exchange, key) for key in consumer.routing_keys
    )


def _given_bindings(queue: t.Any) -> tuple[Binding, ...]:
    """The bindings that a :class:`kombu.Queue` brings along."""
    keys = [(queue.exchange, queue.routing_key)] if queue.exchange else []
    keys += [(binding.exchange, binding.routing_key) for binding in queue.bindings]
    return tuple(
        Binding(queue.name, exchange.name, key or "")
        for exchange, key in keys
        if exchange is not None and exchange.name
    )
