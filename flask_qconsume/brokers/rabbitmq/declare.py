"""Exchanges and queues on RabbitMQ: declared, or only checked.

``auto`` declares, which changes nothing where all is there as wanted; ``passive`` looks
whether it is there; ``never`` does neither. A queue of somebody else's
(:class:`kombu.Queue`) is declared as its owner described it; its lanes are ours.
"""

from __future__ import annotations

import contextlib
import typing as t

from amqp.exceptions import AMQPError
from amqp.exceptions import NotFound

from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...errors import TopologyMismatch
from ...text import quote
from .errors import describe_error
from .errors import explain_error
from .errors import is_refused_as

#: The broker's own limit drops messages, and counts every delivery that a stopped
#: worker had only prefetched; listing dead letters is a delivery too. -1 is refused by
#: RabbitMQ 3.10.
UNLIMITED = 2_147_483_647


class Declaring:
    """Declares on one channel, as ``QCONSUME_DECLARE`` says."""

    def __init__(self, channel: t.Any, mode: str) -> None:
        self._channel = channel
        self._mode = mode

    def topology(self, topology: Topology) -> None:
        """All of the app's.

        :raises TopologyMismatch: if something of it is there with other arguments, or
            (``passive``) is missing.
        """
        self.exchange(topology.exchange)
        for plan in topology.queues:
            # An exclusive queue is its consumer's connection's.
            if not getattr(plan.given, "exclusive", False):
                self.queues(plan)

    def exchange(self, name: str, kind: str = "topic") -> None:
        """One durable exchange."""
        with self._explained(f"exchange {quote(name)}"):
            if self._mode != "never":
                self._channel.exchange_declare(
                    name,
                    kind,
                    passive=self._mode == "passive",
                    durable=True,
                    auto_delete=False,
                )

    def queues(self, plan: QueuePlan) -> None:
        """A consumer's queue with its bindings, and its two lanes."""
        if plan.given is None:
            self.queue(plan.name, arguments_of(plan.type))
            self._bind(plan)
        else:
            self._given(plan)
        self.side_queues(plan)

    def side_queues(self, plan: QueuePlan) -> None:
        """The two lanes of a consumer's queue."""
        for name in (plan.suspects, plan.dead):
            self.queue(name, arguments_of(plan.type))

    def queue(self, name: str, arguments: t.Mapping[str, t.Any]) -> None:
        """One durable queue."""
        with self._explained(f"queue {quote(name)}"):
            if self._mode != "never":
                self._channel.queue_declare(
                    name,
                    passive=self._mode == "passive",
                    durable=True,
                    auto_delete=False,
                    arguments=dict(arguments),
                )

    def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """One binding; ``passive`` cannot check it, AMQP has no such question."""
        if self._mode == "auto":
            self._channel.queue_bind(queue, exchange, routing_key)

    def _bind(self, plan: QueuePlan) -> None:
        for binding in plan.bindings:
            self.bind(binding.queue, binding.exchange, binding.routing_key)

    def _given(self, plan: QueuePlan) -> None:
        with self._explained(f"queue {quote(plan.name)}"):
            if self._mode == "auto":
                plan.given(self._channel).declare()
            elif self._mode == "passive":
                self._channel.queue_declare(plan.name, passive=True)

    @contextlib.contextmanager
    def _explained(self, what: str) -> t.Iterator[None]:
        try:
            yield
        except AMQPError as error:
            if not is_refused_as(error, TopologyMismatch):
                raise
            raise TopologyMismatch(self._mismatch(what, error)) from error

    def _mismatch(self, what: str, error: AMQPError) -> str:
        if isinstance(error, NotFound):
            return (
                f"RabbitMQ has no {what} ({describe_error(error)}), and"
                f" 'QCONSUME_DECLARE' is '{self._mode}'. Run 'flask qconsume declare'"
                " with 'QCONSUME_DECLARE' set to 'auto', or create it yourself."
            )
        return (
            f"RabbitMQ holds the {what} with other arguments than wanted:"
            f" {explain_error(error)}"
        )


def arguments_of(queue_type: str) -> dict[str, t.Any]:
    """The arguments of a queue of ours.

    They can never be changed again, so nothing that may be configured is among them.
    """
    if queue_type == "classic":
        return {}
    return {"x-queue-type": "quorum", "x-delivery-limit": UNLIMITED}
