"""One consumer running in one worker, on its main queue or its queue of suspects.

Suspects are messages that may have killed a process; they are handled one at a time.
The subscription has five parts: the :mod:`connection loop <.connection_loop>` keeps a
link (a broker connection for one queue) open; the *reader* is the only greenlet that
reads the link; the :mod:`intake <.intake>` decides which deliveries go to a handler;
the :mod:`processing <.processing>` handles them and turns outcomes into settlements;
the :mod:`settler <.settler>` sends these to the broker.
"""

from __future__ import annotations

from collections.abc import Sequence

import gevent

from ..broker.base import SuspectsStatus
from ..broker.link import Delivery
from ..broker.link import Lane
from ..broker.link import Link
from ..broker.topology import QueuePlan
from ..registration.consumer import Consumer
from .connection_loop import ConnectionLoop
from .event import Event
from .intake import Intake
from .processing import Processing
from .redeliveries import RedeliveryMemory
from .settlement_events import SettlementEvents
from .settler import Settlement
from .settler import Settler
from .subscription_context import SubscriptionContext
from .subscription_context import WorkerContext
from .suspects import forward_to_suspects

#: Seconds that a broker needs to process an acknowledgement that was sent.
_ACK_NOTICED_SECONDS = 0.05

#: Seconds to wait for greenlets that are about to end.
_JOIN_SECONDS = 5.0


class Subscription:
    """Consumes one queue in one worker, from the worker's start to its stop.

    :param lane: The main queue, or the queue of suspects: messages that may have killed
        a process.
    :param main: For the queue of suspects, the subscription of the main queue.
    """

    def __init__(
        self,
        worker: WorkerContext,
        consumer: Consumer,
        plan: QueuePlan,
        lane: Lane,
        main: Subscription | None = None,
    ) -> None:
        self.context = SubscriptionContext(worker, consumer, plan, lane)
        self.counts = self.context.counts
        self._memory = RedeliveryMemory(self.context.prefetch)
        self.settler = Settler(
            self._release_settled,
            self._lose_link,
            self._exceed_prefetch,
            SettlementEvents(worker.events, consumer),
            max_retried=self.context.prefetch // 2,
        )
        self.processing = Processing(
            self.context,
            self.settler,
            self._release_one,
            None if main is None else main.wait_for_forwards,
        )
        self._intake = Intake(
            self.context, self.processing.handlers, self.settler, self._memory
        )
        self.connection = ConnectionLoop(
            self.context,
            self._intake.receive,
            self._memory,
            self.processing.give_up_overdue,
        )

    @property
    def name(self) -> str:
        """The consumer's name, followed by ``(suspects)`` for its queue of suspects."""
        return self.context.name

    @property
    def connected(self) -> bool:
        """True if the connection is open, and deliveries are being read from it."""
        return self.connection.connected

    @property
    def consuming(self) -> Event:
        """An event that is set while the connection is open and being read."""
        return self.connection.consuming

    @property
    def busy(self) -> int:
        """Number of messages that are being handled."""
        return self.processing.handlers.busy

    @property
    def waiting(self) -> int:
        """Number of messages that were read, and wait here for their next attempt."""
        return self.processing.handlers.waiting + len(self.processing.held)

    def count_waiting(self) -> SuspectsStatus:
        """Ask the broker for the number of messages that wait in the queue.

        For a queue of suspects (messages that may have killed a process), the result
        also tells since when the oldest has been a suspect.

        :raises BrokerError: if the broker cannot be asked.
        """
        broker = self.context.worker.broker
        if self.context.lane is Lane.SUSPECTS:
            return broker.read_suspects(self.context.plan)
        return SuspectsStatus(broker.depth(self.context.queue))

    # -- start and stop ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to consume; the connection is opened in the background."""
        self.settler.start()
        self.connection.start()

    def quiet(self) -> None:
        """Stop fetching; return messages to the broker that no handler has started.

        Suspects (messages that may have killed a process) are returned by :meth:`close`
        as new copies: the broker would mark the originals as redelivered, which counts
        as a death.
        """
        self._intake.closed = True
        unstarted = self.processing.quiet()
        self.connection.quiet(unstarted if self.context.lane is Lane.MAIN else [])

    def wait(self, timeout: float) -> bool:
        """Wait until no handler runs; return whether that happened in time."""
        return self.processing.handlers.running.wait(timeout)

    def interrupt(self) -> None:
        """Throw :class:`~.errors.Interrupted` into all running handlers."""
        self.processing.handlers.running.interrupt()

    def wait_for_forwards(self) -> None:
        """Wait until the originals of forwarded messages are acknowledged.

        A suspect (a message that may have killed a process) may be delivered from its
        new queue before that acknowledgement. If it then killed this process, both
        queues would have a copy of it, each with its own count of deaths.
        """
        if self.settler.wait_for_forwards(_JOIN_SECONDS) < _ACK_NOTICED_SECONDS:
            gevent.sleep(_ACK_NOTICED_SECONDS)

    def close(self, timeout: float) -> bool:
        """Settle handled messages, return all others to the broker, and disconnect.

        :returns: Whether all handled messages could be settled within the timeout.
        """
        if self.context.lane is Lane.SUSPECTS:
            self._return_unsettled_suspects()
        settled = self.settler.drain(timeout)
        self.connection.close()
        self.processing.stop()
        self.settler.stop(_JOIN_SECONDS)
        return settled

    def _return_unsettled_suspects(self) -> None:
        """Send suspects back as copies, so that a stop counts no deaths."""
        for delivery in self.connection.unsettled:
            if not delivery.settled and not self.settler.is_settling(delivery):
                self.settler.forward(forward_to_suspects(delivery))

    # -- calls from the settler and the processing ------------------------------------

    def _release_settled(
        self, deliveries: Sequence[Delivery], unsettled: Sequence[Settlement]
    ) -> None:
        self.connection.release(deliveries)
        for settlement in unsettled:
            self._memory.add_settlement(settlement)

    def _release_one(self, delivery: Delivery) -> None:
        self.connection.release([delivery])

    def _lose_link(self, link: Link, error: BaseException) -> None:
        self.connection.lose(link, error)

    def _exceed_prefetch(self, count: int) -> None:
        self.connection.exceed_prefetch(count)
