"""Base class of the links of both brokers on Redis: consumes one queue.

The reader first takes messages by a script, which leases them in the same step. If
there are none, it waits in Redis, by a command that takes nothing (lists) or leases the
entry that it reads (streams). The script is sent together with that command and runs
when the wait ends, so no message is lost between the two.
"""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.link import LeaseLost
from ...broker.link import Link
from ...broker.topology import QueuePlan
from ...errors import BrokerError
from ...errors import PublishRefused
from ...logs import get_logger
from ...text import pluralize
from .blocked_readers import POLL_INTERVAL
from .blocking_wait import BlockingWait
from .leases import LeasedMessages
from .scripts import Call
from .server import check_answer
from .shared import Shared

logger = get_logger("flask_qconsume.brokers.redis")

T = t.TypeVar("T")

#: A message that is due within this time before the end of a wait does not end it.
_WAKE_MARGIN_SECONDS = 0.1
#: Number of messages that the script takes when a wait ends. If this process is stopped
#: or busy at that time, the messages wait for it although other workers are idle.
ROOM_AFTER_WAIT = 1
#: Seconds that :meth:`RedisLink.close` waits for the reader.
_CLOSE_TIMEOUT_SECONDS = 3.0
#: Seconds for which a dead letter is kept by default: a century.
DEFAULT_RETENTION_SECONDS = 100 * 365 * 86_400.0


class RedisLink(Link):
    """Consumes one queue; a subclass provides the Lua scripts."""

    pushes = False

    def __init__(self, plan: QueuePlan, lane: Lane, shared: Shared[t.Any]) -> None:
        super().__init__(plan, lane)
        lease = shared.settings.lease
        self.keep_alive_interval = min(lease / 3, Link.keep_alive_interval)
        self._shared = shared
        self._leased = self._create_leased_messages(lease)
        #: Whether the last script found nothing, so that the reader waits next.
        self._is_drained = False
        self._is_paused = False
        #: Lock that is held while ``closed`` is set.
        self._close_lock = threading.Lock()
        #: Lock that the reader holds while it uses the connection.
        self._read_lock = threading.Lock()
        self._ended = threading.Event()
        near_key = self._near_key()
        self._redis_connection = shared.server.open_connection(near_key)
        try:
            self._blocking_wait = BlockingWait(
                shared.server, self._redis_connection, near_key, shared.warn
            )
            shared.orphans.adopt(self._leased, self.queue)
        except BaseException:
            self._redis_connection.close()
            raise
        shared.links.add(self)
        if lane is Lane.MAIN:
            shared.poller.get().add(self)

    def read(self, room: int) -> Sequence[Delivery]:
        if self._is_paused or self.closed:
            self._ended.wait(POLL_INTERVAL)
            return []
        with self._read_lock:
            if self._ended.is_set():
                return []
            try:
                deliveries = self._closing_on_error(lambda: self._pop_or_wait(room))
            except Exception:
                if not self._ended.is_set():
                    raise
                return []
        if deliveries and self._is_paused:
            # The wait had begun before the pause.
            self.release(deliveries)
            return []
        # A close that runs meanwhile gives back what was read.
        return [] if self.closed else deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        tags = [delivery.tag for delivery in deliveries]
        lost = self._closing_on_error(lambda: self._leased.ack(tags))
        if lost:
            logger.warning(
                "Lost %s of '%s' to another worker: their leases had ended."
                " 'QCONSUME_LEASE' must be longer than this process ever halts",
                pluralize(lost, "message"),
                self.queue,
            )

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        prepared_calls = [self._prepare_forward(each) for each in forwards]
        calls = [each for each in prepared_calls if isinstance(each, Call)]
        answers = iter(self._closing_on_error(lambda: self._shared.server.run(calls)))
        results = [
            self._note_forwarded(forward.delivery, next(answers))
            if isinstance(each, Call)
            else each
            for forward, each in zip(forwards, prepared_calls, strict=True)
        ]
        self._shared.wake(
            forward.lane.queue_of(self.plan)
            for forward in forwards
            if self._needs_wake(forward)
        )
        return results

    def release(self, deliveries: Sequence[Delivery]) -> None:
        tags = [delivery.tag for delivery in deliveries]
        self._closing_on_error(lambda: self._leased.give_back(tags))
        self._leased.mark_settled(tags)

    def keep_alive(self) -> None:
        if self.closed:
            return
        self._closing_on_error(self._leased.extend_leases)
        self._closing_on_error(self._shared.prepare)
        restored = self._closing_on_error(self._leased.restore_expired)
        if restored:
            logger.warning(
                "Put %s back into '%s': the worker that held them let their leases end",
                pluralize(restored, "message"),
                self.queue,
            )

    def pause(self) -> None:
        self._is_paused = True

    def wake(self) -> None:
        """End the reader's wait, so that the reader looks for messages at once."""
        self._blocking_wait.wake(break_connection=self.closed)

    def create_poll_call(self) -> Call | None:
        """Return a script that finds messages for which Redis wakes no reader.

        The result is ``None`` if the reader does not wait, or if its wait ends soon.
        """
        long = self._blocking_wait.seconds_left() > POLL_INTERVAL
        return self._create_search_call() if long else None

    def note_poll_answer(self, answer: bytes) -> None:
        """Wake the reader if a message is due long before its wait ends.

        :param answer: The seconds until the next message is due; empty if there is
            none.
        """
        # The margin covers the different latencies of two connections to Redis.
        latest = self._blocking_wait.seconds_left() - _WAKE_MARGIN_SECONDS
        if answer and float(answer) < latest:
            self.wake()

    def close(self) -> None:
        with self._close_lock:
            self.closed = True
            first = not self._ended.is_set()
            self._ended.set()
        self._shared.poller.get().discard(self)
        if first:
            # The connection is not cut: the script behind the wait may still take
            # messages, and its answer names them.
            self.wake()
            self._give_back_and_disconnect()

    # -- for subclasses: the layout ---------------------------------------------------

    def _near_key(self) -> str:
        """Return a key of the queue, by which a cluster's node is chosen."""
        return ""

    def _create_leased_messages(self, lease: float) -> LeasedMessages:
        raise NotImplementedError

    def _create_search_call(self) -> Call:
        """Return a script that finds messages for which Redis wakes no reader.

        The script returns the seconds until a message is due; empty if there is none.
        """
        raise NotImplementedError

    def _read_popped(self, answer: t.Any) -> list[Delivery]:
        """Decode the answer of the script that takes messages from the queue."""
        raise NotImplementedError

    def _next_wait(self) -> float:
        """Return the seconds for which the reader may wait in Redis."""
        raise NotImplementedError

    def _block(self, seconds: float, room: int) -> list[Delivery]:
        """Wait in Redis for a message; return the deliveries, or an empty list."""
        raise NotImplementedError

    def _create_forward_call(self, forward: Forward, queue: str) -> Call:
        """Return the script that stores a copy, and deletes the original.

        :raises PublishRefused: if the copy cannot be encoded.
        """
        raise NotImplementedError

    def _needs_wake(self, forward: Forward) -> bool:
        """Return whether Redis does not wake the reader of the copy's queue."""
        raise NotImplementedError

    # -- reading ----------------------------------------------------------------------

    def _pop_or_wait(self, room: int) -> list[Delivery]:
        deliveries = [] if self._is_drained else self._pop(room)
        return deliveries or self._wait_and_pop(room)

    def _pop(self, room: int) -> list[Delivery]:
        call = self._leased.create_pop_call(room)
        answer = check_answer(self._redis_connection.run([call])[0])
        return self._note_found(self._read_popped(answer))

    def _note_found(self, deliveries: list[Delivery]) -> list[Delivery]:
        self._is_drained = not deliveries
        return deliveries

    def _wait_and_pop(self, room: int) -> list[Delivery]:
        seconds = self._next_wait()
        if self.closed:
            return []
        if not self._blocking_wait.begin(seconds):
            return self._pop(room)
        try:
            return self._block(seconds, room)
        finally:
            self._blocking_wait.end()

    # -- settling and closing ---------------------------------------------------------

    def _give_back_and_disconnect(self) -> None:
        """Give back all messages once the reader has stopped, and disconnect."""
        is_quiet = self._read_lock.acquire(timeout=_CLOSE_TIMEOUT_SECONDS)
        if not is_quiet:
            self._redis_connection.interrupt()
        self._shared.orphans.release(self._leased, self.queue)
        if is_quiet:
            self._redis_connection.close()
            self._read_lock.release()

    def _closing_on_error(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except BrokerError:
            with self._close_lock:
                self.closed = True
            raise

    def _prepare_forward(self, forward: Forward) -> Call | PublishRefused | None:
        """Return the script that forwards a message, or the encoding error.

        ``None`` if the lease of the message has ended.
        """
        if forward.delivery.tag not in self._leased:
            return None
        queue = forward.lane.queue_of(self.plan)
        try:
            return self._create_forward_call(forward, queue)
        except PublishRefused:
            pass  # Values nested so deeply that JSON can be read, but not written.
        try:
            return self._create_forward_call(forward.with_simple_values(), queue)
        except PublishRefused as error:
            return error

    def _note_forwarded(self, delivery: Delivery, answer: t.Any) -> Exception | None:
        if isinstance(answer, BrokerError):
            return answer
        self._leased.mark_settled([delivery.tag])
        if answer:
            return None
        return LeaseLost(
            f"The message '{delivery.message.id}' of '{self.queue}' was not forwarded:"
            " its lease had ended and another worker has it. Make 'QCONSUME_LEASE'"
            " longer if this process was only slow."
        )
