"""Exchanges and queues on RabbitMQ: declared, or only checked.

``QCONSUME_DECLARE`` is ``auto`` to declare, which changes nothing if all exist as
wanted; ``passive`` to check that they exist; ``never`` to do neither. A given queue
(:class:`kombu.Queue`) is declared as it is described; the queues beside it, for
suspects and for dead letters, are declared like those of our own queues.
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

#: The highest value of ``x-delivery-limit``, so that the broker's limit never applies:
#: it drops messages, and counts deliveries that a stopped worker had only prefetched,
#: and each listing of dead letters. RabbitMQ 3.10 refuses -1 (no limit).
MAX_DELIVERY_LIMIT = 2_147_483_647


class Declarer:
    """Declares exchanges, queues and bindings, or only checks that they exist.

    :param mode: ``"auto"``, ``"passive"`` (to check) or ``"never"`` (to do nothing).
    """

    def __init__(self, channel: t.Any, mode: str) -> None:
        self._channel = channel
        self._mode = mode

    def declare_topology(self, topology: Topology) -> None:
        """Declare the app's exchange and all queues.

        :raises TopologyMismatch: if the exchange or a queue has other arguments than
            wanted, or is missing in the mode ``passive``.
        """
        self.declare_exchange(topology.exchange)
        for plan in topology.queues:
            # Only the connection that consumes an exclusive queue can declare it.
            if not getattr(plan.given, "exclusive", False):
                self.declare_plan(plan)

    def declare_exchange(self, name: str, kind: str = "topic") -> None:
        with self._translate_errors(f"exchange {quote(name)}"):
            if self._mode != "never":
                self._channel.exchange_declare(
                    name,
                    kind,
                    passive=self._mode == "passive",
                    durable=True,
                    auto_delete=False,
                )

    def declare_plan(self, plan: QueuePlan) -> None:
        """Declare the queues of one consumer: messages, suspects, dead letters."""
        if plan.given is None:
            self.declare_queue(plan.name, queue_arguments(plan.type))
            for binding in plan.bindings:
                self.bind(binding.queue, binding.exchange, binding.routing_key)
        else:
            self._declare_given(plan)
        self.declare_side_queues(plan)

    def declare_side_queues(self, plan: QueuePlan) -> None:
        """Declare the queues for one consumer's suspects and dead letters."""
        for name in (plan.suspects, plan.dead):
            self.declare_queue(name, queue_arguments(plan.type))

    def declare_queue(self, name: str, arguments: t.Mapping[str, t.Any]) -> None:
        with self._translate_errors(f"queue {quote(name)}"):
            if self._mode != "never":
                self._channel.queue_declare(
                    name,
                    passive=self._mode == "passive",
                    durable=True,
                    auto_delete=False,
                    arguments=dict(arguments),
                )

    def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Declare a binding; in the mode ``passive`` do nothing.

        AMQP has no request that checks a binding.
        """
        if self._mode == "auto":
            self._channel.queue_bind(queue, exchange, routing_key)

    def _declare_given(self, plan: QueuePlan) -> None:
        with self._translate_errors(f"queue {quote(plan.name)}"):
            if self._mode == "auto":
                plan.given(self._channel).declare()
            elif self._mode == "passive":
                self._channel.queue_declare(plan.name, passive=True)

    @contextlib.contextmanager
    def _translate_errors(self, what: str) -> t.Iterator[None]:
        try:
            yield
        except AMQPError as error:
            if not is_refused_as(error, TopologyMismatch):
                raise
            raise TopologyMismatch(self._describe_mismatch(what, error)) from error

    def _describe_mismatch(self, what: str, error: AMQPError) -> str:
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


def queue_arguments(queue_type: str) -> dict[str, t.Any]:
    """Return the arguments with which this package declares its own queues.

    RabbitMQ cannot change them later, so they contain no limits that users configure.
    """
    if queue_type == "classic":
        return {}
    return {"x-queue-type": "quorum", "x-delivery-limit": MAX_DELIVERY_LIMIT}
