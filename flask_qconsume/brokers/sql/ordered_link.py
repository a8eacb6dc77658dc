"""The link of a consumer with ``ordering="key"``: one message of a key at a time."""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Iterable
from collections.abc import Sequence

from ...broker import headers as own_headers
from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.topology import QueuePlan
from ...errors import BrokerError
from ...errors import PublishRefused
from . import statements
from .app_database import AppDatabase
from .database import Step
from .link import SqlDelivery
from .link import SqlLink
from .rows import read_claimed_in_order

#: Messages of a queue that one query reads.
_MESSAGES_PER_QUERY = 200
#: Queries from the head of a queue in one read, and as many further behind. They limit
#: its time when most messages are blocked.
_MAX_QUERIES = 10

#: A place in a queue: a rank, which is minus the priority, and a message's number.
Place = tuple[int, int]
_HEAD: Place = (-32_769, 0)


class OrderedLink(SqlLink):
    """Consumes a queue in the order of each key; messages without a key have no order.

    A message is *blocked* while another message with its key is in hand, or was stored
    earlier and is still in the queue, even if the other message is delayed. A message
    that was in hand when a process died is a suspect: it is handled in its place, while
    this process has no other message of the queue.
    """

    keeps_order = True

    def __init__(self, plan: QueuePlan, lane: Lane, shared: AppDatabase) -> None:
        self._in_hand: set[int] = set()
        #: Guards ``_in_hand``, which the settler changes while the reader reads.
        self._in_hand_lock = threading.Lock()
        self._holds_suspect = False
        self._failure: BrokerError | None = None
        #: Where to look for messages if those at the head are blocked.
        self._cursor = _HEAD
        super().__init__(plan, lane, shared)

    def read(self, room: int) -> Sequence[Delivery]:
        if self._failure is not None:
            raise self._failure
        return super().read(room)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        super().ack(deliveries)
        self._drop(deliveries)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        errors = super().forward(forwards)
        pairs = zip(forwards, errors, strict=True)
        self._drop(forward.delivery for forward, error in pairs if error is None)
        return errors

    def release(self, deliveries: Sequence[Delivery]) -> None:
        super().release(deliveries)
        self._drop(deliveries)

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        # The settler does not see this message again.
        delivery.settled = True
        headers = own_headers.make_retry_headers(delivery.message, attempt)
        try:
            self._move(Forward(delivery, Lane.MAIN, headers, delay=delay))
        except BrokerError as error:
            # Raised by the next read or heartbeat, so that this link is replaced.
            self._failure = error
            self._watch.notify()
            return
        self._drop([delivery])
        self._shared.watcher.announce({self.queue}, delayed=delay > 0)

    def keep_alive(self) -> None:
        if self._failure is not None:
            raise self._failure
        super().keep_alive()

    def _move(self, forward: Forward) -> None:
        steps = self._prepare_forward(forward)
        if isinstance(steps, PublishRefused):
            raise steps
        self._database.write(steps)

    # -- reading -----------------------------------------------------------------------

    def _claim(self, room: int) -> list[Delivery]:
        with self._read_lock:
            if self.closed or self._holds_suspect:
                return []
            suspect = self._find_suspect()
            if suspect is not None and self._in_hand:
                return []  # Its turn comes when the messages in hand are settled.
            picked = self._pick(room) if suspect is None else [suspect]
            rows = self._claim_picked(picked, suspect is not None) if picked else []
            if self._is_closed_meanwhile():
                return []
            claimed = [read_claimed_in_order(row, self.queue) for row in rows]
            with self._in_hand_lock:
                self._in_hand.update(number for number, _ in claimed)
                self._holds_suspect = suspect is not None and bool(claimed)
        return [SqlDelivery(self, number, message) for number, message in claimed]

    def _find_suspect(self) -> int | None:
        found = self._database.read(
            statements.PICK_SUSPECT_IN_ORDER, {"queue_": self.queue}
        )
        return found[0][0] if found else None

    def _pick(self, room: int) -> list[int]:
        """Return the numbers of messages that are not blocked, in the queue's order."""
        picked = self._search_from(_HEAD, room)
        if len(picked) < room and self._cursor != _HEAD:
            # Most messages at the head are blocked. What follows them takes turns.
            picked += self._search_from(self._cursor, room - len(picked))
        return picked

    def _search_from(self, place: Place, room: int) -> list[int]:
        """Search behind a place for messages; remember where to go on next time."""
        picked: list[int] = []
        for queries in range(_MAX_QUERIES):
            found = self._query(place)
            picked += [number for number, _, is_blocked in found if not is_blocked]
            if len(found) < _MESSAGES_PER_QUERY:
                self._cursor = _HEAD
                return picked[:room]
            if len(picked) >= room:
                return picked[:room]
            place = found[-1][1], found[-1][0]
            if picked and queries:
                break
            time.sleep(0)  # Let other greenlets run.
        self._cursor = max(self._cursor, place)
        if not picked:
            self._watch.notify()  # The next read goes on.
        return picked

    def _query(self, place: Place) -> list[Sequence[t.Any]]:
        rank, after = place
        return self._database.read(
            statements.PICK_IN_ORDER,
            {
                "queue_": self.queue,
                "n": _MESSAGES_PER_QUERY,
                "after_rank": rank,
                "after": after,
            },
        )

    def _claim_picked(self, picked: list[int], suspect: bool) -> list[Sequence[t.Any]]:
        mine = {"ids": picked, "me": self._number}
        claimed = {**mine, "queue_": self.queue, "suspect": suspect}
        self._database.write([Step(statements.CLAIM_IN_ORDER, claimed)])
        found = self._database.read(statements.FIND_BLOCKED, mine)
        blocked = {number for (number,) in found}
        if blocked:
            give_back = {"ids": sorted(blocked), "me": self._number}
            self._database.write([Step(statements.GIVE_BACK, give_back)])
        rows = self._database.read(statements.READ_CLAIMED, mine)
        return [row for row in rows if row[0] not in blocked]

    def _drop(self, deliveries: Iterable[Delivery]) -> None:
        """Note that messages are no longer in hand, so that later ones may follow."""
        with self._in_hand_lock:
            self._in_hand.difference_update(delivery.tag for delivery in deliveries)
            if not self._in_hand:
                self._holds_suspect = False
        self._watch.notify()
