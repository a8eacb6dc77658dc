"""The link of a consumer with ``ordering="key"``: one message of a key at a time."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Iterable
from collections.abc import Sequence

from ...broker import headers as own_headers
from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.topology import QueuePlan
from ...errors import BrokerError
from . import statements
from .app_database import AppDatabase
from .database import Step
from .link import SqlLink
from .rows import encode_copy
from .rows import read_claimed_in_order

#: Messages of a queue that one query reads.
_MESSAGES_PER_QUERY = 200
#: Queries that one read executes, which limits its time if most messages are blocked.
_MAX_QUERIES_PER_READ = 50
#: A number below all ranks; a rank is minus the priority.
_BEFORE_FIRST_RANK = -32_768


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
        try:
            self._write(self._create_postponement(delivery, attempt, delay))
        except BrokerError as error:
            # The reader raises it, so that this link is replaced.
            self._failure = error
            self._watch.notify()
            return
        self._drop([delivery])
        self._shared.watcher.announce({self.queue}, delayed=delay > 0)

    def _create_postponement(
        self, delivery: Delivery, attempt: int, delay: float
    ) -> Step:
        message = delivery.message
        headers = own_headers.make_retry_headers(message, attempt)
        return Step(
            statements.MOVE,
            {
                "id_": delivery.tag,
                "me": self._number,
                "queue_": self.queue,
                "delay": delay or None,
                "since_": None,
                "meta_": encode_copy(message, headers, self.queue),
            },
        )

    # -- reading -----------------------------------------------------------------------

    def _claim(self, room: int) -> list[Delivery]:
        with self._read_lock:
            if self.closed or self._holds_suspect:
                return []
            suspect = self._find_suspect()
            if suspect is not None and self._in_hand:
                return []  # Its turn comes when the messages in hand are settled.
            picked = self._pick(room) if suspect is None else [suspect]
            rows = self._claim_picked(picked) if picked else []
            claimed = [read_claimed_in_order(row, self.queue) for row in rows]
            with self._in_hand_lock:
                self._in_hand.update(number for number, _ in claimed)
                self._holds_suspect = suspect is not None and bool(claimed)
        return [Delivery(self, number, message) for number, message in claimed]

    def _find_suspect(self) -> int | None:
        found = self._database.read(
            statements.PICK_SUSPECT_IN_ORDER, {"queue_": self.queue}
        )
        return found[0][0] if found else None

    def _pick(self, room: int) -> list[int]:
        """Return the numbers of messages that are not blocked, in the queue's order."""
        picked: list[int] = []
        rank, after = _BEFORE_FIRST_RANK, 0
        for _ in range(_MAX_QUERIES_PER_READ):
            found = self._database.read(
                statements.PICK_IN_ORDER,
                {
                    "queue_": self.queue,
                    "n": _MESSAGES_PER_QUERY,
                    "after_rank": rank,
                    "after": after,
                },
            )
            picked += [number for number, _, is_blocked in found if not is_blocked]
            if len(picked) >= room or len(found) < _MESSAGES_PER_QUERY:
                break
            after, rank, _ = found[-1]
        return picked[:room]

    def _claim_picked(self, picked: list[int]) -> list[Sequence[t.Any]]:
        mine = {"ids": picked, "me": self._number}
        self._database.write([Step(statements.CLAIM_IN_ORDER, mine)])
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
