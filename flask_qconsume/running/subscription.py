"""One consumer running in one worker, on one of its lanes.

Four roles, each a greenlet or a pool of them: the *reader* is the only one that reads
the link, and only hands deliveries over; the *handlers* handle them; the *settler*
settles them; the *supervisor* beats the link's heart, and makes a new one when it is
lost. A link is never reopened: whatever belonged to the old one is stale.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence

import gevent
from flask import Flask

from ..broker import headers
from ..broker.base import Broker
from ..broker.link import PARKED_RETRY_SECONDS
from ..broker.link import Delivery
from ..broker.link import Forward
from ..broker.link import Lane
from ..broker.link import Link
from ..broker.topology import QueuePlan
from ..errors import HandlerTimeout
from ..errors import Interrupted
from ..handling.dispatch import dispatch
from ..handling.result import Result
from ..logs import get_logger
from ..outcomes import Ack
from ..outcomes import Reject
from ..outcomes import Retry
from ..registration.consumer import Consumer
from ..settings import Settings
from ..text import escape
from .backoff import Backoff
from .delayed import Delayed
from .event import Event
from .fair_share import Turns
from .greenlets import ProtectedGreenlet
from .handlers import Handlers
from .outages import OutageLog
from .reader import Reader
from .reconnect import Lookout
from .redeliveries import Survivors
from .settler import Settlement
from .settler import Settler
from .suspects import to_lane
from .suspects import triage
from .time_limits import TimeLimits

logger = get_logger("flask_qconsume.subscription")

#: Retries sooner than this are held here, since a broker's delays are coarser.
HELD_HERE = 1.0

#: Seconds beyond its time limit after which a handler that swallows it is given up.
OVERDUE = 10.0

#: Seconds after which a connection that was lost had been a good one.
LASTING = 5.0

#: Seconds in which a broker takes notice of an acknowledgement that was written.
ACKED = 0.05

#: Seconds that closing waits for greenlets which have nothing left to wait for.
_PATIENCE = 5.0


class Subscription:
    """Consumes one lane of one consumer until it is stopped.

    :param main: For the lane of suspects, the subscription they come from.
    :param turns: When its messages may be begun; at any time unless given.
    """

    def __init__(
        self,
        app: Flask,
        broker: Broker,
        lookout: Lookout,
        outages: OutageLog,
        settings: Settings,
        consumer: Consumer,
        plan: QueuePlan,
        lane: Lane,
        stopping: Event,
        main: Subscription | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.consumer = consumer
        self.lane = lane
        #: How many messages came to which outcome, by its name.
        self.counts: Counter[str] = Counter()
        #: Set while it is connected and reads.
        self.consuming = Event()
        self._app = app
        self._broker = broker
        self._lookout = lookout
        self._outages = outages
        self._settings = settings
        self._plan = plan
        self._stopping = stopping
        self._main = main
        alone = lane is Lane.SUSPECTS
        self._prefetch = 1 if alone else consumer.prefetch
        self._handlers = Handlers(
            self.name,
            1 if alone else consumer.concurrency,
            self._handle,
            self._handled,
            self._let_go,
            turns,
        )
        self._limits = TimeLimits()
        self._settler = Settler(
            self._closed, self._lost, self._put_off, most=self._prefetch // 2
        )
        self._reader: Reader | None = None
        self._held = Delayed(self._handle_again)
        self._survivors = Survivors(self._prefetch)
        self._quiet = False
        self._over = Event()
        self._supervisor: ProtectedGreenlet | None = None

    @property
    def name(self) -> str:
        """The consumer's name, and the lane's if it is not the main one."""
        suffix = " (suspects)" if self.lane is Lane.SUSPECTS else ""
        return self.consumer.name + suffix

    @property
    def connected(self) -> bool:
        """Whether it reads, and the broker is there."""
        reader = self._reader
        interrupted = reader is not None and reader.link.interrupted
        return self.consuming.is_set() and not interrupted

    @property
    def busy(self) -> int:
        """How many messages are being handled."""
        return self._handlers.busy

    # -- what the watch looks at ------------------------------------------------------

    @property
    def queue(self) -> str:
        """The name of the queue that it reads."""
        main = self.lane is Lane.MAIN
        return self._plan.name if main else self._plan.suspects

    @property
    def concurrency(self) -> int:
        """How many messages it handles at once."""
        return 1 if self.lane is Lane.SUSPECTS else self.consumer.concurrency

    @property
    def received(self) -> int:
        """How many messages it has read by its present connection."""
        return 0 if self._reader is None else self._reader.received

    @property
    def idle(self) -> bool:
        """Whether it has nothing in hand, and would take what is there."""
        busy = self._handlers.busy or self._handlers.waiting or self._held
        starves = self._reader is not None and self._reader.link.may_starve
        return not (busy or starves or self._settler.open)

    @property
    def suspected_since(self) -> float | None:
        """Of what it has in hand in the lane: when the oldest became a suspect."""
        held = () if self._reader is None else self._reader.held
        return headers.find_oldest_suspect(delivery.message for delivery in held)

    @property
    def stuck(self) -> Delivery | None:
        """What waits for a handler although one is free."""
        return self._handlers.stuck

    @property
    def unsettled(self) -> frozenset[Delivery]:
        """What is being settled."""
        return self._settler.open

    @property
    def puts_off(self) -> bool:
        """Whether the broker refused to take something, so that it is tried again."""
        return self._settler.puts_off

    @property
    def parks(self) -> bool:
        """Whether dead letters had to wait outside of their queue just now."""
        return time.monotonic() - self._settler.parked_at < 2 * PARKED_RETRY_SECONDS

    @property
    def late(self) -> int:
        """How many handlers are far beyond their time limit and do not end."""
        return self._handlers.late(self.consumer.timeout + OVERDUE)

    @property
    def tended(self) -> bool:
        """Whether the greenlets that look after it run."""
        supervisor = self._supervisor
        return supervisor is not None and not supervisor.dead and self._settler.works

    # -- its life ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin to consume; connecting goes on in the background, for ever."""
        self._settler.start()
        self._supervisor = ProtectedGreenlet.spawn(self._supervise)

    def quiet(self) -> None:
        """Fetch no more, and give back what no handler has started."""
        self._quiet = True
        self._held.clear()
        unstarted = self._handlers.clear()
        reader = self._reader
        if reader is None:
            self._over.set()
            return
        try:
            reader.quiet()
            self._give_back(reader, unstarted)
        except Exception as error:
            self._lost(reader.link, error)

    def wait(self, timeout: float) -> bool:
        """Wait until no handler runs; whether that came true in time."""
        return self._handlers.wait(timeout)

    def interrupt(self) -> None:
        """Throw :class:`~.errors.Interrupted` into the handlers that still run."""
        self._handlers.interrupt()

    def await_forwarded(self) -> None:
        """Wait until what was forwarded is acknowledged where it came from.

        A suspect may be here before that. If it killed the process now, it would be
        found in both places, and each of the two would be counted on its own.
        """
        if self._settler.await_forwarded(_PATIENCE) < ACKED:
            gevent.sleep(ACKED)

    def close(self, timeout: float) -> bool:
        """Settle what can be settled, give back the rest, and end.

        :returns: Whether all that was handled could be settled.
        """
        if self._reader is not None and self.lane is Lane.SUSPECTS:
            self._clear_of_suspicion(self._reader)
        settled = self._settler.drain(timeout)
        self._over.set()
        if self._supervisor is not None:
            self._supervisor.join(_PATIENCE)
        self._handlers.stop()
        self._limits.close()
        self._settler.stop(_PATIENCE)
        return settled

    # -- the supervisor ---------------------------------------------------------------

    def _supervise(self) -> None:
        backoff = Backoff()
        while not self._quiet:
            try:
                self._consume_once(backoff)
            except gevent.GreenletExit:
                raise
            except BaseException:
                # A bug, or thrown into this greenlet from outside.
                logger.exception("%s: consuming was cut off, it goes on", self.name)
                gevent.sleep(backoff.next())

    def _consume_once(self, backoff: Backoff) -> None:
        """Connect, and consume until the connection is lost."""
        link = self._connect(backoff)
        if link is None:
            return
        if self._tend(link):
            backoff.reset()
        if not self._quiet:
            self._pause(backoff, backoff.next())

    def _connect(self, backoff: Backoff) -> Link | None:
        try:
            return self._broker.connect(self._plan, self.lane, self._prefetch)
        except Exception as error:
            text = f"not connected to the queue '{self._plan.name}', trying again"
            self._outages.failed(self.name, text, error)
            self._pause(backoff, backoff.next())
            return None

    def _pause(self, backoff: Backoff, delay: float) -> None:
        """Wait before the next connection, unless the subscription is closed."""
        self._over.clear()
        if not self._quiet and self._lookout.pause(self._over, delay):
            # What failed so far says nothing of a broker that has just come back.
            backoff.reset()

    def _tend(self, link: Link) -> bool:
        """Keep one link alive until it is lost or the subscription is closed.

        :returns: Whether it had been a good one, so that its loss is news.
        """
        if self._quiet:
            link.close()
            return False
        began = time.monotonic()
        self._over.clear()
        reader = self._reader = Reader(link, self._prefetch, self._receive)
        reading = ProtectedGreenlet.spawn(self._read, reader)
        self.consuming.set()
        logger.info("%s: consuming the queue '%s'", self.name, link.queue)
        self._outages.connected(self.name)
        try:
            self._beat(link)
        finally:
            self.consuming.clear()
            self._reader = None
            self._survivors.remember(delivery.identity for delivery in reader.held)
            link.close()
            reader.wake()
            self._survivors.remember(link.fetched_ids)
            reading.join(_PATIENCE)
        return reader.received > 0 or time.monotonic() - began > LASTING

    def _beat(self, link: Link) -> None:
        while not self._over.wait(link.keep_alive_interval):
            # After a stall of the hub the reader goes first: what it has not read yet
            # would look like silence.
            gevent.sleep(0)
            self._give_up_overdue()
            try:
                link.keep_alive()
            except Exception as error:
                self._lost(link, error)
                return

    def _read(self, reader: Reader) -> None:
        try:
            reader.run()
        except BaseException as error:
            self._lost(reader.link, error)

    def _lost(self, link: Link, error: BaseException) -> None:
        """A link failed, whoever noticed: close it, so that all of it is stale."""
        reader = self._reader
        if reader is None or reader.link is not link or self._over.is_set():
            return
        text = f"lost the connection to the queue '{link.queue}', connecting again"
        self._outages.failed(self.name, text, error)
        self._over.set()

    # -- deliveries, in ---------------------------------------------------------------

    def _receive(self, deliveries: Sequence[Delivery]) -> None:
        if not self._quiet:  # Else they go back when the link is closed.
            self._handlers.put(filter(self._is_to_be_handled, deliveries))

    def _is_to_be_handled(self, delivery: Delivery) -> bool:
        """Whether nothing else is to be done with it, which is done then."""
        if headers.PARKED in delivery.message.headers:
            self._settler.forward(self._unparked(delivery))
            return False
        if not delivery.message.redelivered and not self._survivors:
            return True
        if self._handlers.adopt(delivery) or self._answered(delivery):
            return False
        forward = self._triage(delivery)
        if forward is None:
            return True
        self.counts["suspect"] += 1
        if forward.lane is Lane.DEAD:
            logger.error(
                "%s: message %s is a dead letter: %s",
                self.name,
                escape(delivery.message.id),
                forward.headers[headers.REASON],
            )
        self._settler.forward(forward)
        return False

    def _unparked(self, delivery: Delivery) -> Forward:
        """A dead letter on its way to its queue, which refused it before."""
        kept = dict(delivery.message.headers)
        del kept[headers.PARKED]
        ttl = self._settings.dead_letter_ttl
        return Forward(delivery, Lane.DEAD, kept, expires=ttl)

    def _answered(self, delivery: Delivery) -> bool:
        """Settle as known what was handled before its connection was lost."""
        answer = self._survivors.answer_to(delivery)
        if isinstance(answer, Forward):
            self._settler.forward(answer)
        elif answer is not None:
            self._settler.ack(answer)
        return answer is not None

    def _triage(self, delivery: Delivery) -> Forward | None:
        if self._survivors.include(delivery):
            return None
        return triage(delivery, self.lane, self.consumer, self._settings)

    # -- handling ---------------------------------------------------------------------

    def _handle(self, delivery: Delivery) -> Result:
        try:
            if self._main is not None:
                self._main.await_forwarded()
            return dispatch(
                self._app,
                self.consumer,
                delivery.message,
                limit=self._limits,
                stopping=self._stopping,
            )
        except Interrupted:
            raise
        except BaseException as error:
            # Thrown into this greenlet from outside, before or after the handler.
            return self._failed(delivery, error)

    def _failed(self, delivery: Delivery, error: BaseException) -> Result:
        """What the retry policy says of an error that came from outside the handler."""
        outcome = self.consumer.retry.decide(delivery.message.attempt, error)
        return Result(outcome, error)

    def _handled(self, delivery: Delivery, result: Result) -> None:
        outcome = result.outcome
        if isinstance(outcome, Retry):
            self.counts["retry"] += 1
            self._retry(delivery, outcome.delay or 0.0)
        elif isinstance(outcome, Reject):
            self.counts["reject"] += 1
            self._settler.forward(self._dead(delivery, outcome, result.error))
        else:
            self.counts["ack" if isinstance(outcome, Ack) else "drop"] += 1
            self._settler.ack(delivery)

    def _retry(self, delivery: Delivery, delay: float) -> None:
        attempt = delivery.message.attempt + 1
        if delivery.link.keeps_order:
            self._postpone(delivery, attempt, delay)
            return
        if delay < HELD_HERE and not self._quiet:
            self._hold(delivery, attempt, delay)
            return
        changed = headers.make_retry_headers(delivery.message, attempt)
        self._settler.forward(Forward(delivery, Lane.MAIN, changed, delay=delay))

    def _postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        """Leave it to its link, which holds back what is behind it."""
        if not delivery.stale:
            delivery.link.postpone(delivery, attempt, delay)
        self._let_go(delivery)

    def _hold(self, delivery: Delivery, attempt: int, delay: float) -> None:
        """Keep it here, unsettled, for less than a second."""
        delivery.message = dataclasses.replace(delivery.message, attempt=attempt)
        self._held.add(delivery, delay)

    def _handle_again(self, delivery: Delivery) -> None:
        self._handlers.put([delivery])

    def _dead(
        self, delivery: Delivery, outcome: Reject, error: BaseException | None
    ) -> Forward:
        changed = headers.make_dead_letter_headers(
            delivery.message,
            self.consumer.name,
            self.consumer.queue,
            outcome.reason,
            error,
            time.time(),
        )
        ttl = self._settings.dead_letter_ttl
        return Forward(delivery, Lane.DEAD, changed, expires=ttl)

    def _give_up_overdue(self) -> None:
        allowed = self.consumer.timeout + OVERDUE
        for delivery in self._handlers.give_up_overdue(allowed):
            logger.error(
                "%s: the handler of message %s ignores its time limit of %g s. It is"
                " left alone, and the message goes to its retry policy. Let the handler"
                " pass on 'HandlerTimeout'.",
                self.name,
                escape(delivery.message.id),
                self.consumer.timeout,
            )
            error = HandlerTimeout(self.consumer.timeout)
            self._handled(delivery, self._failed(delivery, error))

    # -- deliveries, out --------------------------------------------------------------

    def _closed(
        self, deliveries: Sequence[Delivery], unsettled: Sequence[Settlement]
    ) -> None:
        self._release(deliveries)
        for settlement in unsettled:
            self._survivors.keep_answer(settlement)

    def _put_off(self, count: int) -> None:
        """What the broker refused for now takes no places of others."""
        if self._reader is not None:
            self._reader.exceed_prefetch(count)

    def _let_go(self, delivery: Delivery) -> None:
        self._release([delivery])

    def _release(self, deliveries: Sequence[Delivery]) -> None:
        """They are not ours to care for any more, so there is room for others."""
        if self._reader is not None:
            self._reader.release(deliveries)

    def _give_back(self, reader: Reader, deliveries: list[Delivery]) -> None:
        """Let others have what was not started at once, and not only at the end."""
        if self.lane is Lane.SUSPECTS:
            return  # Those go back by 'close', without a mark.
        fresh = [delivery for delivery in deliveries if not delivery.stale]
        if fresh:
            reader.link.release(fresh)

    def _clear_of_suspicion(self, reader: Reader) -> None:
        """Put back what the stop left unsettled in the lane: a stop is no death."""
        for delivery in reader.held:
            if not delivery.settled and not self._settler.has(delivery):
                self._settler.forward(to_lane(delivery))
