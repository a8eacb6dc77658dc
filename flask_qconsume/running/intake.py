"""Decides whether a new delivery goes to a handler, or is settled without one."""

from __future__ import annotations

from collections.abc import Sequence

from ..broker import headers
from ..broker.link import Delivery
from ..broker.link import Forward
from ..broker.link import Lane
from ..handling.context import about
from ..handling.events import tell
from ..logs import get_logger
from ..message import Message
from ..outcomes import Reject
from ..text import escape
from .greenlets import ProtectedGreenlet
from .handlers import Handlers
from .redeliveries import RedeliveryMemory
from .settler import Settler
from .subscription_context import SubscriptionContext
from .suspects import triage

#: The logger of all lines about what becomes of a message.
logger = get_logger("flask_qconsume.dispatch")


class Intake:
    """Passes new deliveries to handlers, except those that need no handler.

    Three kinds of deliveries need no handler: dead letters that are on the way to a
    queue that was full; messages that this process has handled or is handling; and
    suspects (messages that may have killed a process) that go to another queue.
    """

    def __init__(
        self,
        context: SubscriptionContext,
        handlers: Handlers,
        settler: Settler,
        memory: RedeliveryMemory,
    ) -> None:
        self._context = context
        self._settings = context.worker.settings
        self._events = context.worker.events
        self._handlers = handlers
        self._settler = settler
        self._memory = memory
        #: True once the worker stops. Deliveries then stay unsettled, so that they go
        #: back to the broker when the link is closed.
        self.closed = False

    def receive(self, deliveries: Sequence[Delivery]) -> None:
        """Pass new deliveries to handlers, or settle them without a handler."""
        if self.closed:
            return
        if self._events.received and deliveries:
            messages = [delivery.message for delivery in deliveries]
            tell(self._events.received, self._context.consumer, messages)
        self._handlers.put(filter(self._is_to_be_handled, deliveries))

    def _is_to_be_handled(self, delivery: Delivery) -> bool:
        """Return whether a delivery goes to a handler; settle it if it does not."""
        if headers.PARKED in delivery.message.headers:
            self._settler.forward(self._to_dead_letters(delivery))
            return False
        if not delivery.message.redelivered and not self._memory:
            return True
        if self._handlers.running.adopt(delivery) or self._settle_as_known(delivery):
            return False
        forward = self._triage(delivery)
        if forward is None:
            return True
        self._forward_suspect(forward)
        return False

    def _forward_suspect(self, forward: Forward) -> None:
        message, rejected = forward.delivery.message, None
        self._context.counts["suspect"] += 1
        if forward.lane is Lane.DEAD:
            rejected = Reject(forward.headers[headers.REASON])
            with about(self._context.consumer, message):
                logger.error(
                    "%s: message %s is a dead letter: %s",
                    self._context.name,
                    escape(message.id),
                    rejected.reason,
                )
        self._settler.forward(forward)
        if self._events.suspected:
            # In another greenlet: this one reads from the broker, and the app's code
            # that is called may wait.
            ProtectedGreenlet.spawn(self._tell_suspected, message, rejected)

    def _tell_suspected(self, message: Message, rejected: Reject | None) -> None:
        consumer = self._context.consumer
        with about(consumer, message):
            tell(self._events.suspected, consumer, message, rejected)

    def _to_dead_letters(self, delivery: Delivery) -> Forward:
        kept = dict(delivery.message.headers)
        del kept[headers.PARKED]
        ttl = self._settings.dead_letter_ttl
        return Forward(delivery, Lane.DEAD, kept, expires=ttl)

    def _settle_as_known(self, delivery: Delivery) -> bool:
        settlement = self._memory.take_settlement(delivery)
        if isinstance(settlement, Forward):
            self._settler.forward(settlement)
        elif settlement is not None:
            self._settler.ack(settlement)
        return settlement is not None

    def _triage(self, delivery: Delivery) -> Forward | None:
        if self._memory.take_unsettled(delivery):
            return None
        return triage(
            delivery, self._context.lane, self._context.consumer, self._settings
        )
