"""The link that consumes one queue: a row of ``qconsume_link`` that owns messages."""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ...broker import headers as own_headers
from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.topology import QueuePlan
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...errors import PublishRefused
from ...logs import get_logger
from ...text import pluralize
from . import statements
from .app_database import AppDatabase
from .database import Step
from .database import StepResult
from .dead_columns import make_columns
from .rows import encode_copy
from .rows import read_claimed

logger = get_logger("flask_qconsume.brokers.sql")

T = t.TypeVar("T")

#: Seconds that a paused reader waits before it returns nothing.
_PAUSED_SECONDS = 1.0
#: Seconds after which a reader looks without a notification. The watcher looks every
#: second or more often, for all readers at once.
_LONGEST_WAIT_SECONDS = 30.0
#: Seconds that :meth:`SqlLink.close` waits for the reader.
_CLOSE_TIMEOUT_SECONDS = 3.0
#: Seconds for which a dead letter is kept if it never expires: a century.
_DEFAULT_RETENTION_SECONDS = 100 * 365 * 86_400.0


class SqlDelivery(Delivery):
    """A claimed row, whose number stays the same when the row is claimed again."""

    __slots__ = ()

    tag: int

    @property
    def identity(self) -> str:
        return str(self.tag)

    @property
    def may_be_known(self) -> bool:
        # A lost link gives its messages back without a mark.
        return True


class SqlLink(Link):
    """Consumes one queue of a database; its lease is renewed by :meth:`keep_alive`."""

    pushes = False

    def __init__(self, plan: QueuePlan, lane: Lane, shared: AppDatabase) -> None:
        super().__init__(plan, lane)
        self._shared = shared
        self._database = shared.database
        self._lease = shared.settings.lease
        self.keep_alive_interval = shared.keep_alive_interval
        self._is_paused = False
        #: The link's number, once its messages were given back.
        self._given_back: int | None = None
        self._close_lock = threading.Lock()
        #: Held by the reader while it claims messages.
        self._read_lock = threading.Lock()
        shared.retry_give_back()
        shared.housekeeper.run()
        (opened,) = self._database.write(
            [
                Step(
                    statements.OPEN_LINK,
                    {
                        "queue_": self.queue,
                        "lease": self._lease,
                        "process_": self._database.process,
                    },
                )
            ]
        )
        assert opened.row is not None
        self._number: int = opened.row[0]
        self._watch = shared.watcher.add(self.queue)

    def read(self, room: int) -> Sequence[Delivery]:
        if self._is_paused or self.closed:
            self._watch.wait(_PAUSED_SECONDS)
            return []
        self._watch.clear()
        deliveries = self._closing_on_error(lambda: self._claim(room))
        if not deliveries and not (self._is_paused or self.closed):
            self._watch.wait(_LONGEST_WAIT_SECONDS)
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        (done,) = self._write(
            Step(statements.ACK, {"ids": _list_tags(deliveries), "me": self._number})
        )
        self._warn_of_lost(len(deliveries) - done.changed)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        prepared = [self._prepare_forward(forward) for forward in forwards]
        to_do = [each for each in prepared if isinstance(each, list)]
        steps = [step for each in to_do for step in each]
        results = iter(self._write(*steps) if steps else ())
        moved = [[next(results) for _ in each][-1].changed for each in to_do]
        # Another worker has the others, and decides about them.
        self._warn_of_lost(moved.count(0))
        self._announce(forwards)
        return [None if isinstance(each, list) else each for each in prepared]

    def release(self, deliveries: Sequence[Delivery]) -> None:
        tags = _list_tags(deliveries)
        self._write(Step(statements.GIVE_BACK, {"ids": tags, "me": self._number}))
        self._shared.watcher.announce({self.queue})

    def keep_alive(self) -> None:
        if self.closed:
            return
        number = self._number
        renewal = self._closing_on_error(lambda: self._shared.leases.renew(number))
        if number in renewal.lost:
            with self._close_lock:
                self.closed = True
            raise BrokerUnavailable(
                f"The lease of the link to '{self.queue}' had ended: this process was"
                " halted, or the database was away, for longer than 'QCONSUME_LEASE'."
            )
        if renewal.leader == number:
            self._closing_on_error(self._shared.housekeeper.run)

    def pause(self) -> None:
        self._is_paused = True
        self._watch.notify()

    def close(self) -> None:
        with self._close_lock:
            self.closed = True
            is_first_call = self._number >= 0
            number, self._number = self._number, -1
            self._given_back = number if is_first_call else self._given_back
        self._shared.watcher.discard(self._watch)
        self._shared.leases.discard(number)
        if is_first_call:
            is_quiet = self._read_lock.acquire(timeout=_CLOSE_TIMEOUT_SECONDS)
            with contextlib.suppress(BrokerError):
                self._shared.give_back(number)
                self._shared.watcher.announce({self.queue})
            if is_quiet:
                self._read_lock.release()

    # -- reading -----------------------------------------------------------------------

    def _claim(self, room: int) -> list[Delivery]:
        with self._read_lock:
            if self.closed:
                return []
            rows = self._database.claim(self._number, self.queue, room)
            if self._is_closed_meanwhile():
                return []
        claimed = (read_claimed(row, self.queue) for row in rows)
        return [SqlDelivery(self, number, message) for number, message in claimed]

    def _is_closed_meanwhile(self) -> bool:
        """Give back what was claimed for a link that has been closed meanwhile."""
        if self.closed and self._given_back is not None:
            with contextlib.suppress(BrokerError):
                self._shared.give_back(self._given_back)
        return self.closed

    # -- settling ----------------------------------------------------------------------

    def _write(self, *steps: Step) -> list[StepResult]:
        return self._closing_on_error(lambda: self._database.write(steps))

    def _closing_on_error(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except BrokerError:
            with self._close_lock:
                self.closed = True
            raise

    def _prepare_forward(self, forward: Forward) -> list[Step] | PublishRefused:
        """Return the steps that forward a message, or the encoding error."""
        try:
            return self._create_steps(forward)
        except PublishRefused:
            pass  # Values nested so deeply that JSON can be read, but not written.
        try:
            return self._create_steps(forward.with_simple_values())
        except PublishRefused as error:
            return error

    def _create_steps(self, forward: Forward) -> list[Step]:
        queue = forward.lane.queue_of(self.plan)
        meta = encode_copy(forward.delivery.message, forward.headers, queue)
        mine = {"id_": forward.delivery.tag, "me": self._number}
        values = {**mine, "queue_": queue, "meta_": meta}
        if forward.lane is Lane.DEAD:
            keep = forward.expires or _DEFAULT_RETENTION_SECONDS
            ack = {"ids": [forward.delivery.tag], "me": self._number}
            columns = make_columns(forward.delivery.message, forward.headers, meta)
            added = {**values, **columns, "keep": keep}
            return [Step(statements.ADD_DEAD_LETTER, added), Step(statements.ACK, ack)]
        values["delay"] = forward.delay or None
        values["since_"] = own_headers.read_time(
            forward.headers, own_headers.SUSPECTED_AT
        )
        return [Step(statements.MOVE, values)]

    def _warn_of_lost(self, count: int) -> None:
        if count:
            logger.warning(
                "Lost %s of '%s' to another worker: their leases had ended."
                " 'QCONSUME_LEASE' must be longer than this process ever halts",
                pluralize(count, "message"),
                self.queue,
            )

    def _announce(self, forwards: Sequence[Forward]) -> None:
        queues = {
            forward.lane.queue_of(self.plan)
            for forward in forwards
            if forward.lane is not Lane.DEAD
        }
        delayed = any(forward.delay > 0 for forward in forwards)
        if queues:
            self._shared.watcher.announce(queues, delayed)


def _list_tags(deliveries: Sequence[Delivery]) -> list[int]:
    return [delivery.tag for delivery in deliveries]
