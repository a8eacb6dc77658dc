"""Computes the exchange, queues and bindings that an app needs; declares nothing."""

from __future__ import annotations

import itertools
import typing as t
from dataclasses import dataclass

from ..registration.consumer import Consumer
from ..retry import RetryPolicy
from ..settings import Settings


@dataclass(frozen=True, order=True)
class Binding:
    """A rule: an exchange copies messages with some routing keys to a queue."""

    queue: str
    exchange: str
    routing_key: str


@dataclass(frozen=True)
class QueuePlan:
    """One consumer's queue: its name, its type, its bindings and its retry delays."""

    name: str
    consumer: str
    #: ``"quorum"`` or ``"classic"``, on brokers that know the difference.
    type: str
    #: All bindings, including those that a given queue contains.
    bindings: tuple[Binding, ...]
    #: The :class:`kombu.Queue` that the consumer was given, used as it is.
    given: t.Any = None
    #: ``"none"``, ``"key"`` or ``"partition"``: the order in which messages are
    #: handled.
    ordering: str = "none"
    #: Seconds of the longest delay after each attempt, by the retry policy.
    delays: tuple[float, ...] = ()
    #: Prefix of the topics that the bindings mean, on brokers where routing keys are
    #: topics: the app's prefix; empty for a given queue.
    prefix: str = ""

    @property
    def suspects(self) -> str:
        """The name of the queue of messages that may have killed a process."""
        return f"{self.name}.suspects"

    @property
    def handled_queues(self) -> tuple[str, str]:
        """The names of the queues that a worker reads: messages and suspects."""
        return self.name, self.suspects

    @property
    def dead(self) -> str:
        """The name under which the dead letters are kept."""
        return f"{self.name}.dead"


@dataclass(frozen=True)
class Topology:
    """The exchange, queues and bindings of one app."""

    #: The app's topic exchange, with the queue prefix.
    exchange: str
    queues: tuple[QueuePlan, ...]

    def queue(self, name: str) -> QueuePlan:
        """Find a queue's plan by the queue's name on the broker."""
        return next(queue for queue in self.queues if queue.name == name)

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The bindings of all queues, as the app's code declares them."""
        return tuple(binding for queue in self.queues for binding in queue.bindings)


def plan_topology(settings: Settings, consumers: t.Iterable[Consumer]) -> Topology:
    """Compute the exchange, queues and bindings that an app's consumers need."""
    return Topology(
        exchange=settings.exchange,
        queues=tuple(_plan_queue(settings, consumer) for consumer in consumers),
    )


def _plan_queue(settings: Settings, consumer: Consumer) -> QueuePlan:
    return QueuePlan(
        name=consumer.queue,
        consumer=consumer.name,
        type=settings.queue_type,
        bindings=_plan_bindings(settings, consumer),
        given=consumer.given,
        ordering=consumer.ordering,
        delays=_find_delays(consumer.retry),
        prefix="" if consumer.given is not None else settings.queue_prefix,
    )


def _find_delays(policy: RetryPolicy) -> tuple[float, ...]:
    """Return the longest delay after each of 100 attempts, without repetitions."""
    longest_delays = map(policy.longest_delay, range(1, policy.max_attempts))
    return tuple(dict.fromkeys(itertools.islice(longest_delays, 100)))


def _plan_bindings(settings: Settings, consumer: Consumer) -> tuple[Binding, ...]:
    if consumer.given is not None:
        return _read_given_bindings(consumer.given)
    return tuple(
        Binding(consumer.queue, settings.exchange, key) for key in consumer.routing_keys
    )


def _read_given_bindings(queue: t.Any) -> tuple[Binding, ...]:
    """Read the bindings that a :class:`kombu.Queue` contains."""
    keys = [(queue.exchange, queue.routing_key)] if queue.exchange else []
    keys += [(binding.exchange, binding.routing_key) for binding in queue.bindings]
    return tuple(
        Binding(queue.name, exchange.name, key or "")
        for exchange, key in keys
        if exchange is not None and exchange.name
    )
