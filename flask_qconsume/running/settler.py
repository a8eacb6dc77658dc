"""Settles deliveries: sends their acknowledgements and forwards to the broker.

A forward sends a message on to another queue: as a retry, a dead letter or a suspect (a
message that may have killed a process). :mod:`~.processing` decides how to settle a
delivery; this module carries it out, in batches. One greenlet acknowledges. Another one
forwards, since it may have to wait for the broker, and acknowledgements do not. Both
are protected against ``kill()``, since a write that is cut off would corrupt the
connection.
"""

from __future__ import annotations

import math
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

import gevent
from gevent.queue import SimpleQueue

from ..broker.link import PARKED_RETRY_SECONDS
from ..broker.link import Delivery
from ..broker.link import Forward
from ..broker.link import Lane
from ..broker.link import Link
from ..errors import BrokerError
from ..errors import PublishRefused
from ..logs import get_logger
from ..text import escape
from ..text import pluralize
from .backoff import Backoff
from .event import Event
from .forward_retries import ForwardRetries
from .greenlets import ProtectedGreenlet
from .settlement_events import SettlementEvents

logger = get_logger("flask_qconsume.settler")

#: How a delivery is settled: a :class:`Delivery` is acknowledged, a :class:`Forward` is
#: sent on.
Settlement = Delivery | Forward

#: How many settlements one batch has at most.
_MAX_BATCH = 500


class Settler:
    """Sends the acknowledgements and the forwards of one subscription to the broker.

    All deliveries that are not stale came by one link: a subscription opens the next
    link only after it has closed the last one.

    :param on_closed: Called with deliveries that need no more work here, and with the
        settlements that failed.
    :param on_link_failure: Called with a link (connection) that failed, and the error.
    :param on_retry_count: Called with the number of refused forwards that wait to be
        tried again.
    :param events: Told what is settled, and what can no longer be settled.
    :param max_retried: If the broker pushes messages and this many refused forwards
        wait, further dead letters wait in the broker instead.
    """

    def __init__(
        self,
        on_closed: Callable[[Sequence[Delivery], Sequence[Settlement]], None],
        on_link_failure: Callable[[Link, BaseException], None],
        on_retry_count: Callable[[int], None],
        events: SettlementEvents,
        max_retried: int,
    ) -> None:
        self._on_closed = on_closed
        self._on_link_failure = on_link_failure
        self._events = events
        self._acks: list[Delivery] = []
        self._to_ack = Event()
        self._ending = False
        self._forwards: SimpleQueue[Forward | None] = SimpleQueue()
        self._settling: set[Delivery] = set()
        self._failed_count = 0
        self._all_closed = Event()
        self._all_forwarded = Event()
        self._all_forwarded.set()
        self._last_forward = 0.0
        self._retries = ForwardRetries(self._forwards.put, on_retry_count)
        self._max_retried = max_retried
        #: Set by a refusal, until a forward succeeds or none is left.
        self._was_refused = False
        self._backoff = Backoff()
        self._stopping = Event()
        self._greenlets: list[ProtectedGreenlet] = []
        #: How many deliveries lost their connection before they were settled.
        self.stale_count = 0
        #: When dead letters last had to wait outside of their queue.
        self.parked_at = -math.inf

    def start(self) -> None:
        """Start two greenlets: one acknowledges, the other one forwards."""
        self._greenlets = [
            ProtectedGreenlet.spawn(_run_until_end, self._ack_next),
            ProtectedGreenlet.spawn(_run_until_end, self._forward_next),
        ]

    def ack(self, delivery: Delivery) -> None:
        """Queue a delivery to be acknowledged."""
        self._settling.add(delivery)
        if not self._acks:
            self._to_ack.set()
        self._acks.append(delivery)

    def forward(self, forward: Forward) -> None:
        """Queue a forward: a copy of a message, on its way to another queue."""
        self._settling.add(forward.delivery)
        self._all_forwarded.clear()
        self._forwards.put(forward)

    def is_settling(self, delivery: Delivery) -> bool:
        """Return whether a delivery is queued or being settled."""
        return delivery in self._settling

    @property
    def settling(self) -> frozenset[Delivery]:
        """The deliveries that are queued or being settled."""
        return frozenset(self._settling)

    @property
    def retries_forwards(self) -> bool:
        """True if forwards that the broker has refused wait for another attempt."""
        return self._was_refused or bool(self._retries)

    @property
    def is_running(self) -> bool:
        """True if both greenlets run."""
        return not any(greenlet.dead for greenlet in self._greenlets)

    def wait_for_forwards(self, timeout: float) -> float:
        """Wait until all forwards are sent; return the seconds since the last one."""
        self._all_forwarded.wait(timeout)
        return time.monotonic() - self._last_forward

    def drain(self, timeout: float) -> bool:
        """Settle all that is queued; return whether it succeeded in time.

        From now on, failed forwards are not retried: their messages stay in the queue
        that they came from.
        """
        before = self._failed_count
        self._stopping.set()
        self._close_forwards(self._retries.clear())
        if self._settling:
            self._all_closed.clear()
            self._all_closed.wait(timeout)
        return not self._settling and self._failed_count == before

    def stop(self, timeout: float) -> None:
        """End the greenlets once they have nothing left to settle."""
        self._ending = True
        self._to_ack.set()
        self._forwards.put(None)
        gevent.joinall(self._greenlets, timeout)

    def _ack_next(self) -> bool:
        batch = self._take_acks()
        fresh = [delivery for delivery in batch if not delivery.stale]
        if fresh:
            self._ack(fresh)
        self._close(batch, [each for each in batch if not each.settled])
        return bool(batch)

    def _take_acks(self) -> list[Delivery]:
        while not self._acks and not self._ending:
            self._to_ack.clear()
            self._to_ack.wait()
        batch, self._acks = self._acks[:_MAX_BATCH], self._acks[_MAX_BATCH:]
        return batch

    def _ack(self, deliveries: list[Delivery]) -> None:
        tell_end = self._events.begin_acks(deliveries)
        failure: BaseException | None = None
        try:
            deliveries[0].link.ack(deliveries)
        except BaseException as error:
            failure = error
            self._fail_link(deliveries[0].link, error)
        else:
            for delivery in deliveries:
                delivery.settled = True
        if tell_end is not None:
            tell_end([failure] * len(deliveries))

    def _forward_next(self) -> bool:
        batch = _take_batch(self._forwards)
        fresh = [forward for forward in batch if not forward.delivery.stale]
        self._close_forwards([f for f in batch if f.delivery.stale])
        if fresh:
            self._forward(fresh)
        self._last_forward = time.monotonic()
        if self._forwards.empty():
            self._all_forwarded.set()
        return bool(batch)

    def _forward(self, forwards: list[Forward]) -> None:
        link = forwards[0].delivery.link
        errors: Sequence[BaseException | None]
        tell_end = self._events.begin_forwards(forwards)
        try:
            errors = link.forward(forwards)
        except BaseException as error:
            self._fail_link(link, error)
            errors = [error] * len(forwards)
        for forward, error_or_none in zip(forwards, errors, strict=True):
            if error_or_none is None:
                forward.delivery.settled = True
                self._was_refused = False
                self._backoff.reset()
                self._close_forwards([forward])
        if tell_end is not None:
            tell_end(errors)
        failed = [(f, e) for f, e in zip(forwards, errors, strict=True) if e]
        if failed:
            self._handle_refused(failed)

    def _handle_refused(self, failed: list[tuple[Forward, BaseException]]) -> None:
        """Try forwards again later that the broker has refused.

        Until the retry, the messages stay unsettled, so that none is lost.
        """
        if self._stopping.is_set():
            self._close_forwards([forward for forward, _ in failed])
            return
        room = self._max_retried - len(self._retries)
        parked = [each for each in failed[max(0, room) :] if _may_park(*each)]
        later = [each for each in failed if each not in parked]
        if parked:
            self._park(parked)
        if later:
            self._retry_later(later)

    def _park(self, failed: list[tuple[Forward, BaseException]]) -> None:
        """Send dead letters as delayed retries, since their own queue is full."""
        self.parked_at = time.monotonic()
        logger.error(
            "The dead-letter queue of '%s' refuses %s. Dead letters wait for %g s as"
            " retries that are not handled, so that other messages have room here. Make"
            " room in that queue: %s",
            failed[0][0].delivery.link.queue,
            pluralize(len(failed), "message"),
            PARKED_RETRY_SECONDS,
            escape(failed[0][1]),
        )
        for forward, _ in failed:
            self._forwards.put(forward.as_parked())

    def _retry_later(self, failed: list[tuple[Forward, BaseException]]) -> None:
        delay = self._backoff.next()
        logger.error(
            "Could not forward %s of '%s', unsettled until then; trying again in"
            " %.1f s: %s",
            pluralize(len(failed), "message"),
            failed[0][0].delivery.link.queue,
            delay,
            escape(failed[0][1]),
        )
        self._was_refused = True
        self._retries.add([forward for forward, _ in failed], delay)

    def _fail_link(self, link: Link, error: BaseException) -> None:
        if not isinstance(error, BrokerError):
            logger.exception("Settling failed in an unforeseen way.")
        self._on_link_failure(link, error)

    def _close_forwards(self, forwards: Sequence[Forward]) -> None:
        unsettled = [each for each in forwards if not each.delivery.settled]
        self._close([forward.delivery for forward in forwards], unsettled)

    def _close(
        self, deliveries: Sequence[Delivery], unsettled: Sequence[Settlement]
    ) -> None:
        stale = [d for d in map(get_delivery, unsettled) if d.stale]
        self.stale_count += len(stale)
        self._failed_count += len(unsettled)
        self._settling.difference_update(deliveries)
        self._on_closed(deliveries, unsettled)
        if not self._settling:
            self._was_refused = False
            self._all_closed.set()
        if stale:
            self._events.tell_lost(stale)


def _may_park(forward: Forward, error: BaseException) -> bool:
    pushes = forward.delivery.link.pushes
    return pushes and forward.lane is Lane.DEAD and isinstance(error, PublishRefused)


def get_delivery(settlement: Settlement) -> Delivery:
    """Return the delivery of a queued acknowledgement or forward."""
    if isinstance(settlement, Forward):
        return settlement.delivery
    return settlement


def _run_until_end(settle_next: Callable[[], bool]) -> None:
    """Settle one batch after another; an exception does not end the loop."""
    more = True
    while more:
        try:
            more = settle_next()
        except gevent.GreenletExit:
            raise
        except BaseException:
            logger.exception("Settling was cut off; it goes on.")


def _take_batch(inbox: t.Any) -> list[t.Any]:
    """Wait for queued items, and return all; an empty list if no more will come."""
    first = inbox.get()
    if first is None:
        return []
    batch = [first]
    while len(batch) < _MAX_BATCH and not inbox.empty():
        item = inbox.get()
        if item is None:
            inbox.put(None)
            break
        batch.append(item)
    return batch
