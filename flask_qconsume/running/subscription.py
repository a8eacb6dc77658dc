"""One consumer running in one worker, on one of its lanes: queue or suspects.

Five roles, each an object: the :mod:`connection loop <.connection_loop>` keeps a link
open, and its *reader* is the only greenlet that reads the link; the :mod:`intake
<.intake>` decides which deliveries go to a handler; the :mod:`processing <.processing>`
handles them and turns outcomes into settlements; the :mod:`settler <.settler>` tells
the broker.
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
from .settler import Settlement
from .settler import Settler
from .subscription_context import SubscriptionContext
from .subscription_context import WorkerContext
from .suspects import forward_to_suspects

#: Seconds that a broker needs to notice an acknowledgement that was written.
_ACK_NOTICED_SECONDS = 0.05

#: Seconds to wait for greenlets that have nothing left to wait for.
_JOIN_SECONDS = 5.0


class Subscription:
    """One lane of one consumer, consumed from start to stop.

    :param main: For the lane of suspects, the subscription that they come from.
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
        """The consumer's name, marked if this is the lane of its suspects."""
        return self.context.name

    @property
    def connected(self) -> bool:
        """True if it reads, and the broker is reachable."""
        return self.connection.connected

    @property
    def consuming(self) -> Event:
        """Set while it is connected and reads."""
        return self.connection.consuming

    @property
    def busy(self) -> int:
        """Number of messages that are being handled."""
        return self.processing.handlers.busy

    def count_waiting(self) -> SuspectsStatus:
        """Count the messages in its queue; of suspects, find also the oldest.

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
        """Fetch no more, and give back the messages that no handler has started.

        In the lane of suspects :meth:`close` does so, which leaves no mark on them.
        """
        self._intake.closed = True
        unstarted = self.processing.quiet()
        self.connection.quiet(unstarted if self.context.lane is Lane.MAIN else [])

    def wait(self, timeout: float) -> bool:
        """Wait until no handler runs; return false if the timeout was first."""
        return self.processing.handlers.running.wait(timeout)

    def interrupt(self) -> None:
        """Throw :class:`~.errors.Interrupted` into the handlers that still run."""
        self.processing.handlers.running.interrupt()

    def wait_for_forwards(self) -> None:
        """Wait until all forwarded messages are acknowledged in the queue they left.

        A suspect may arrive in its lane before that. If it killed the process now, it
        would be found in both places, and each of the two would be counted on its own.
        """
        if self.settler.wait_for_forwards(_JOIN_SECONDS) < _ACK_NOTICED_SECONDS:
            gevent.sleep(_ACK_NOTICED_SECONDS)

    def close(self, timeout: float) -> bool:
        """Settle what can be settled, give back the rest, and end.

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
        """Put suspects back without a new mark: a stop is not a crash."""
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
        """Read more, since refused messages take the places of other messages."""
        self.connection.exceed_prefetch(count)
