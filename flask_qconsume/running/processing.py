"""Handles the messages of one subscription, then acknowledges, retries or rejects."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from ..broker import headers
from ..broker.link import Delivery
from ..broker.link import Forward
from ..broker.link import Lane
from ..errors import HandlerTimeout
from ..errors import Interrupted
from ..handling.context import Handling
from ..handling.context import about
from ..handling.dispatch import dispatch
from ..handling.dispatch import tell_failed
from ..handling.events import tell
from ..handling.result import Result
from ..logs import get_logger
from ..message import Message
from ..outcomes import Ack
from ..outcomes import Reject
from ..outcomes import Retry
from ..registration.consumer import Consumer
from ..text import escape
from .delayed_items import DelayedItems
from .greenlets import ProtectedGreenlet
from .handlers import Handlers
from .running_jobs import Abandoned
from .settler import Settler
from .subscription_context import SubscriptionContext
from .time_limits import TimeLimits

#: The logger of all lines about what becomes of a message.
logger = get_logger("flask_qconsume.dispatch")

#: Retries with a shorter delay, in seconds, are held in this process, since brokers
#: delay messages in coarser steps.
HELD_HERE_SECONDS = 1.0

#: Seconds beyond its time limit after which a handler that ignores the limit is
#: abandoned.
OVERDUE_SECONDS = 10.0


class Processing:
    """Runs the handler for each delivery, and settles the delivery by the outcome.

    :param let_go: Called with each delivery that needs no settlement after all.
    :param before_handling: If given, called before each message; may wait.
    """

    def __init__(
        self,
        context: SubscriptionContext,
        settler: Settler,
        let_go: Callable[[Delivery], None],
        before_handling: Callable[[], None] | None,
    ) -> None:
        self.handlers = Handlers(
            context.name,
            context.concurrency,
            self._handle,
            self._apply,
            let_go,
            context.worker.fair_share,
        )
        #: Messages whose next attempt is less than a second away, held in this process.
        self.held = DelayedItems(self._handle_again)
        self._app = context.worker.app
        self._events = context.worker.events
        self._stopping = context.worker.stopping
        self._settings = context.worker.settings
        self._name = context.name
        self._consumer: Consumer = context.consumer
        self._settler = settler
        self._let_go = let_go
        self._counts = context.counts
        self._before_handling = before_handling
        self._limits = TimeLimits()
        self._capabilities = context.worker.broker.capabilities
        self._has_logged_cut = False
        self._quiet = False

    @property
    def overdue(self) -> int:
        """Number of running handlers that are far beyond their time limit."""
        return self.handlers.running.count_overdue(self._allowed_seconds)

    def quiet(self) -> list[Delivery]:
        """Start no more handlers; return the deliveries that are still queued."""
        self._quiet = True
        self.held.clear()
        return self.handlers.clear()

    def stop(self) -> None:
        """End all greenlets: free ones now, busy ones after their message."""
        self.handlers.stop()
        self._limits.close()

    def give_up_overdue(self) -> None:
        """Abandon handlers that ignore their time limit, and settle their messages.

        The retry policy decides how each of these messages is settled.
        """
        for abandoned in self.handlers.give_up_overdue(self._allowed_seconds):
            delivery = abandoned.delivery
            with about(self._consumer, delivery.message):
                self._log_abandoned(delivery.message)
            error = HandlerTimeout(self._consumer.timeout)
            result = self._apply_retry_policy(delivery, error)
            self._tell_abandoned(abandoned, result)
            self._apply(delivery, result, abandoned.began)

    def _tell_abandoned(self, abandoned: Abandoned, result: Result) -> None:
        """Tell that an attempt failed, now, and not when its handler ends."""
        handling = abandoned.handling
        if handling is not None and not handling.failure_told:
            handling.failure_told = True
            # In another greenlet: this one keeps the connection alive, and the app's
            # code that is called may wait.
            ProtectedGreenlet.spawn(self._tell_failed, handling.message, result)

    def _log_abandoned(self, message: Message) -> None:
        logger.error(
            "%s: the handler of message %s ignores its time limit of %g s. It is left"
            " alone, and the message goes to its retry policy. Let the handler pass on"
            " 'HandlerTimeout'.",
            self._name,
            escape(message.id),
            self._consumer.timeout,
        )

    @property
    def _allowed_seconds(self) -> float:
        return self._consumer.timeout + OVERDUE_SECONDS

    # -- from a delivery to its outcome -----------------------------------------------

    def _handle(self, delivery: Delivery) -> Result:
        try:
            if self._before_handling is not None:
                self._before_handling()
            return dispatch(
                self._app,
                self._consumer,
                delivery.message,
                events=self._events,
                limit=self._limits,
                stopping=self._stopping,
            )
        except Interrupted:
            raise
        except BaseException as error:
            # Other code threw it into this greenlet, before or after the handler ran.
            result = self._apply_retry_policy(delivery, error)
            self._tell_failed(delivery.message, result)
            return result

    def _tell_failed(self, message: Message, result: Result) -> None:
        handling = Handling(self._consumer, message)
        tell_failed(self._app, self._events, handling, result)

    def _apply_retry_policy(self, delivery: Delivery, error: BaseException) -> Result:
        outcome = self._consumer.retry.decide(delivery.message.attempt, error)
        return Result(outcome, error)

    # -- from the outcome to a settlement ---------------------------------------------

    def _apply(self, delivery: Delivery, result: Result, began: float) -> None:
        message = delivery.message  # Replaced by the next attempt's, for some retries.
        self._settle(delivery, result)
        if self._events.decided:
            self._tell_decided(message, result, time.monotonic() - began)

    def _tell_decided(self, message: Message, result: Result, seconds: float) -> None:
        # The settlement is scheduled already, so that no listener can prevent it.
        tell(self._events.decided, self._consumer, message, result, seconds)

    def _settle(self, delivery: Delivery, result: Result) -> None:
        outcome = result.outcome
        if isinstance(outcome, Retry):
            self._counts["retry"] += 1
            self._retry(delivery, outcome.delay or 0.0)
        elif isinstance(outcome, Reject):
            self._counts["reject"] += 1
            self._settler.forward(self._to_dead_letters(delivery, outcome, result))
        else:
            self._counts["ack" if isinstance(outcome, Ack) else "drop"] += 1
            self._settler.ack(delivery)

    def _retry(self, delivery: Delivery, delay: float) -> None:
        attempt = delivery.message.attempt + 1
        if delivery.link.keeps_order:
            self._postpone(delivery, attempt, delay)
            return
        if delay < HELD_HERE_SECONDS and not self._quiet:
            self._hold(delivery, attempt, delay)
            return
        if delay > self._capabilities.max_delay:
            delay = self._cut_delay(delay)
        changed = headers.make_retry_headers(delivery.message, attempt)
        self._settler.forward(Forward(delivery, Lane.MAIN, changed, delay=delay))

    def _cut_delay(self, delay: float) -> float:
        """Return the broker's longest delay; the first time, log that it is shorter.

        An early retry is harmless. A refusal would fail an attempt that the app's code
        wants to repeat.
        """
        longest = self._capabilities.max_delay
        if not self._has_logged_cut:
            self._has_logged_cut = True
            logger.warning(
                "%s: a 'Retry' asks for a delay of %.0f s, and %s can hold a message"
                " back for %.0f s at the most. The message comes after that time, as do"
                " later ones, for which this is not logged again.",
                self._name,
                delay,
                self._capabilities.broker,
                longest,
            )
        return longest

    def _postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        """Give a message back to its link, which delivers it again in its order."""
        if not delivery.stale:
            delivery.link.postpone(delivery, attempt, delay)
        self._let_go(delivery)

    def _hold(self, delivery: Delivery, attempt: int, delay: float) -> None:
        delivery.message = dataclasses.replace(delivery.message, attempt=attempt)
        self.held.add(delivery, delay)

    def _handle_again(self, delivery: Delivery) -> None:
        self.handlers.put([delivery])

    def _to_dead_letters(
        self, delivery: Delivery, outcome: Reject, result: Result
    ) -> Forward:
        changed = headers.make_dead_letter_headers(
            delivery.message,
            self._consumer.name,
            self._consumer.queue,
            outcome.reason,
            result.error,
            time.time(),
        )
        ttl = self._settings.dead_letter_ttl
        return Forward(delivery, Lane.DEAD, changed, expires=ttl)
