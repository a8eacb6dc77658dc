"""Settlement: telling the broker what became of each delivery.

Two greenlets that nobody kills (a write cut off in the middle would corrupt the
connection): one acknowledges, in batches; the other one forwards retries, dead letters
and suspects, which may have to wait for the broker, so acknowledgements do not.
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
from .greenlets import ProtectedGreenlet
from .put_off import PutOff

logger = get_logger("flask_qconsume.settler")

#: What becomes of a delivery: a delivery itself stands for its acknowledgement.
Settlement = Delivery | Forward

#: How many settlements go into one batch at the most.
_BATCH = 500


class Settler:
    """Settles the deliveries of one subscription.

    All deliveries that are not stale came by one link: a subscription opens the next
    one only after it has closed the last.

    :param closed: Told the deliveries that need no more care, since they are settled or
        stale; and how those would have been settled that are not.
    :param lost: Told a link that failed, and the error.
    :param put_off: Told how many deliveries wait for a refused forward to be tried
        again.
    :param most: How many may wait for that where the broker pushes, since they take
        the places of others there.
    """

    def __init__(
        self,
        closed: Callable[[Sequence[Delivery], Sequence[Settlement]], None],
        lost: Callable[[Link, BaseException], None],
        put_off: Callable[[int], None],
        most: int,
    ) -> None:
        self._closed = closed
        self._lost = lost
        self._acks: list[Delivery] = []
        self._to_ack = Event()
        self._ending = False
        self._forwards: SimpleQueue[Forward | None] = SimpleQueue()
        self._open: set[Delivery] = set()
        self._unsettled = 0
        self._all_closed = Event()
        self._all_forwarded = Event()
        self._all_forwarded.set()
        self._last_forward = 0.0
        self._put_off = PutOff(self._forwards.put, put_off)
        self._most_put_off = most
        self._backoff = Backoff()
        self._stopping = Event()
        self._greenlets: list[ProtectedGreenlet] = []
        #: How many deliveries were stale by the time they were to be settled.
        self.stale = 0
        #: When dead letters last had to wait outside of their queue.
        self.parked_at = -math.inf

    def start(self) -> None:
        """Start both greenlets."""
        self._greenlets = [
            ProtectedGreenlet.spawn(_go_on, self._ack_next),
            ProtectedGreenlet.spawn(_go_on, self._forward_next),
        ]

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge a delivery soon."""
        self._open.add(delivery)
        if not self._acks:
            self._to_ack.set()
        self._acks.append(delivery)

    def forward(self, forward: Forward) -> None:
        """Forward a delivery soon, and try until it arrives or is stale."""
        self._open.add(forward.delivery)
        self._all_forwarded.clear()
        self._forwards.put(forward)

    def has(self, delivery: Delivery) -> bool:
        """Whether a delivery is being settled."""
        return delivery in self._open

    @property
    def open(self) -> frozenset[Delivery]:
        """What is being settled."""
        return frozenset(self._open)

    @property
    def puts_off(self) -> bool:
        """Whether something could not be forwarded and is tried again later."""
        return bool(self._put_off)

    @property
    def works(self) -> bool:
        """Whether both greenlets run."""
        return not any(greenlet.dead for greenlet in self._greenlets)

    def await_forwarded(self, timeout: float) -> float:
        """Wait until no forward is under way; the seconds since the last one ended."""
        self._all_forwarded.wait(timeout)
        return time.monotonic() - self._last_forward

    def drain(self, timeout: float) -> bool:
        """Settle what is to be; whether all was settled within ``timeout`` seconds.

        A forward that fails from now on is not tried again: its message stays with the
        broker, as does that of one that is put off.
        """
        before = self._unsettled
        self._stopping.set()
        self._close_forwards(self._put_off.clear())
        if self._open:
            self._all_closed.clear()
            self._all_closed.wait(timeout)
        return not self._open and self._unsettled == before

    def stop(self, timeout: float) -> None:
        """End both greenlets once they have nothing in hand."""
        self._ending = True
        self._to_ack.set()
        self._forwards.put(None)
        gevent.joinall(self._greenlets, timeout)

    def _ack_next(self) -> bool:
        """Acknowledge what was handled, waiting for it; false at the end."""
        batch = self._batch_of_acks()
        fresh = [delivery for delivery in batch if not delivery.stale]
        if fresh:
            self._ack(fresh)
        self._close(batch, [each for each in batch if not each.settled])
        return bool(batch)

    def _batch_of_acks(self) -> list[Delivery]:
        """What was handled meanwhile, waiting for it; nothing at all means the end."""
        while not self._acks and not self._ending:
            self._to_ack.clear()
            self._to_ack.wait()
        batch, self._acks = self._acks[:_BATCH], self._acks[_BATCH:]
        return batch

    def _ack(self, deliveries: list[Delivery]) -> None:
        try:
            deliveries[0].link.ack(deliveries)
        except BaseException as error:
            self._failed(deliveries[0].link, error)
        else:
            for delivery in deliveries:
                delivery.settled = True

    def _forward_next(self) -> bool:
        """Forward what is to be, waiting for it; false at the end."""
        batch = _batch(self._forwards)
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
        try:
            errors = link.forward(forwards)
        except BaseException as error:
            self._failed(link, error)
            errors = [error] * len(forwards)
        for forward, error_or_none in zip(forwards, errors, strict=True):
            if error_or_none is None:
                forward.delivery.settled = True
                self._backoff.reset()
                self._close_forwards([forward])
        failed = [(f, e) for f, e in zip(forwards, errors, strict=True) if e]
        if failed:
            self._again(failed)

    def _again(self, failed: list[tuple[Forward, BaseException]]) -> None:
        """Try later what did not arrive; unsettled until then, it cannot be lost."""
        if self._stopping.is_set():
            self._close_forwards([forward for forward, _ in failed])
            return
        room = self._most_put_off - len(self._put_off)
        parked = [each for each in failed[max(0, room) :] if _may_park(*each)]
        later = [each for each in failed if each not in parked]
        if parked:
            self._park(parked)
        if later:
            self._put_off_until_later(later)

    def _park(self, failed: list[tuple[Forward, BaseException]]) -> None:
        """Have dead letters wait outside of their queue, which refuses them."""
        self.parked_at = time.monotonic()
        logger.error(
            "The dead-letter queue of '%s' refuses %s. Dead letters wait for %g s as"
            " retries that are not handled, since others need their places here. Make"
            " room in that queue: %s",
            failed[0][0].delivery.link.queue,
            pluralize(len(failed), "message"),
            PARKED_RETRY_SECONDS,
            escape(failed[0][1]),
        )
        for forward, _ in failed:
            self._forwards.put(forward.as_parked())

    def _put_off_until_later(self, failed: list[tuple[Forward, BaseException]]) -> None:
        delay = self._backoff.next()
        logger.error(
            "Could not forward %s of '%s', unsettled until then; trying again in"
            " %.1f s: %s",
            pluralize(len(failed), "message"),
            failed[0][0].delivery.link.queue,
            delay,
            escape(failed[0][1]),
        )
        self._put_off.add([forward for forward, _ in failed], delay)

    def _failed(self, link: Link, error: BaseException) -> None:
        """Give the link up: the broker will give out again what was not settled."""
        if not isinstance(error, BrokerError):
            logger.exception("Settling failed in an unforeseen way.")
        self._lost(link, error)

    def _close_forwards(self, forwards: Sequence[Forward]) -> None:
        unsettled = [each for each in forwards if not each.delivery.settled]
        self._close([forward.delivery for forward in forwards], unsettled)

    def _close(
        self, deliveries: Sequence[Delivery], unsettled: Sequence[Settlement]
    ) -> None:
        self.stale += sum(delivery_of(each).stale for each in unsettled)
        self._unsettled += len(unsettled)
        self._open.difference_update(deliveries)
        self._closed(deliveries, unsettled)
        if not self._open:
            self._all_closed.set()


def _may_park(forward: Forward, error: BaseException) -> bool:
    """Whether its queue refused a dead letter, which takes a place at the broker."""
    pushes = forward.delivery.link.pushes
    return pushes and forward.lane is Lane.DEAD and isinstance(error, PublishRefused)


def delivery_of(settlement: Settlement) -> Delivery:
    """The delivery that is settled by this."""
    if isinstance(settlement, Forward):
        return settlement.delivery
    return settlement


def _go_on(settle_next: Callable[[], bool]) -> None:
    """Settle until the end, whatever is thrown in between."""
    more = True
    while more:
        try:
            more = settle_next()
        except gevent.GreenletExit:
            raise
        except BaseException:
            logger.exception("Settling was cut off; it goes on.")


def _batch(inbox: t.Any) -> list[t.Any]:
    """What is there to do, waiting for it; nothing at all means the end."""
    first = inbox.get()
    if first is None:
        return []
    batch = [first]
    while len(batch) < _BATCH and not inbox.empty():
        item = inbox.get()
        if item is None:
            inbox.put(None)
            break
        batch.append(item)
    return batch
