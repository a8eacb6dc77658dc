"""One connection that consumes one queue. Knows nothing about publishing.

The reader waits without taking anything: it lets Redis move a message from the queue's
right end to where it was, which blocks while there is none. What it then takes, it
takes by a script that holds it in the same step, so that nothing is lost in between;
the script is sent with the wait, and run as soon as that ends.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace

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
from .blocked_readers import POLL_INTERVAL
from .errors import error_code
from .errors import error_text
from .errors import translate_error
from .leases import LeasedMessages
from .scripts import Call
from .server import check_answer
from .shared import Shared

logger = get_logger("flask_qconsume.brokers.redis")

T = t.TypeVar("T")

#: Seconds that a wait takes at most. What ends none is looked for sooner by one for all
#: (:mod:`.unseen`), but in a lane of suspects, which nobody publishes to.
_WAIT = 5.0
#: A wait that ends by so much later anyway is not ended for what becomes due.
_MARGIN = 0.1
#: How many messages are taken by the end of a wait: this process may be stopped, or
#: its hub blocked, while others have nothing to do.
ONE = 1
#: Codes of what this Redis, or the user's permissions, have not.
LACKING = ("NOPERM", "UNKNOWN")
#: Seconds that a close waits for Redis.
_GRACE = 3.0
#: Seconds that a dead letter is kept where no time is given: a century.
LONG = 100 * 365 * 86_400.0


class LeaseLost(BrokerError):
    """The message was not ours any more: its lease had ended, somebody else has it."""


class RedisLink(Link):
    """One queue of which messages are taken and held in one step.

    How they lie in Redis is for a subclass to say.
    """

    pushes = False

    def __init__(self, plan: QueuePlan, lane: Lane, shared: Shared[t.Any]) -> None:
        super().__init__(plan, lane)
        lease = shared.settings.lease
        self.keep_alive_interval = min(lease / 3, Link.keep_alive_interval)
        self._shared = shared
        self._held = self._holder(lease)
        #: Whether the last look found nothing, so that a wait comes next.
        self._dry = False
        self._paused = False
        #: Guards ``closed``, ``_waiting`` and ``_woken``, for an instant only.
        self._gate = threading.Lock()
        self._waiting = False
        self._woken = False
        #: When the wait ends at the latest.
        self._until = 0.0
        #: Held by the reader while it talks to Redis.
        self._reading = threading.Lock()
        self._ended = threading.Event()
        self._longest = min(_WAIT, shared.server.silence / 2)
        self._wire = shared.server.open_connection(self._near())
        try:
            self._id = self._wakeable()
            self._take_up_orphans()
        except BaseException:
            self._wire.close()
            raise
        shared.links.add(self)
        if lane is Lane.MAIN:
            shared.poller.get().add(self)

    def read(self, room: int) -> Sequence[Delivery]:
        if self._paused or self.closed:
            self._ended.wait(POLL_INTERVAL)
            return []
        with self._reading:
            if self._ended.is_set():
                return []
            try:
                found = [] if self._dry else self._watched(lambda: self._pop(room))
                if not found:
                    found = self._watched(lambda: self._await_more(room))
            except Exception:
                if not self._ended.is_set():
                    raise
                return []
        if found and self._paused:
            # It came while the wait went on that had begun before.
            self.release(found)
            return []
        # What was fetched during a close goes back by it.
        return [] if self.closed else found

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        tags = [delivery.tag for delivery in deliveries]
        self._note_lost(self._watched(lambda: self._held.ack(tags)))

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        prepared = [self._prepared(each) for each in forwards]
        calls = [each for each in prepared if isinstance(each, Call)]
        answers = iter(self._watched(lambda: self._shared.server.run(calls)))
        results = [
            self._forwarded(forward.delivery, next(answers))
            if isinstance(each, Call)
            else each
            for forward, each in zip(forwards, prepared, strict=True)
        ]
        self._shared.wake(self._place(f) for f in forwards if self._is_unseen(f))
        return results

    def release(self, deliveries: Sequence[Delivery]) -> None:
        tags = [delivery.tag for delivery in deliveries]
        self._watched(lambda: self._held.give_back(tags))
        self._held.mark_settled(tags)

    def keep_alive(self) -> None:
        if self.closed:
            return
        self._watched(self._held.extend_leases)
        self._watched(self._shared.prepare)
        restored = self._watched(self._held.restore_expired)
        if restored:
            logger.warning(
                "Put %s back into '%s': the worker that held them let their leases end",
                pluralize(restored, "message"),
                self.queue,
            )

    def pause(self) -> None:
        self._paused = True

    def wake(self) -> None:
        """Let the reader look at once for what does not end its wait."""
        with self._gate:
            self._woken = True
            waiting = self._waiting
        # The wait may not have arrived in Redis yet, so once is not always enough.
        for _ in range(3 if waiting and self._id is not None else 0):
            if self._unblocked():
                break

    def create_poll_call(self) -> Call | None:
        """What tells if there is anything that does not end the present wait."""
        left = self._until - time.monotonic()
        return self._look_beside() if self._waiting and left > POLL_INTERVAL else None

    def note_poll_answer(self, answer: bytes) -> None:
        """Wake the reader for what comes before its wait ends.

        :param answer: In how many seconds, if ever.
        """
        # By how much the two ways to Redis differ is no reason.
        soon = self._until - _MARGIN
        if answer and time.monotonic() + float(answer) < soon:
            self.wake()

    def close(self) -> None:
        with self._gate:
            self.closed = True
            first = not self._ended.is_set()
            self._ended.set()
        self._shared.poller.get().discard(self)
        if first:
            # Not interrupted: what follows the wait may take something even then.
            self.wake()
            self._end()

    # -- how they lie in Redis --------------------------------------------------------

    def _near(self) -> str:
        """A key that is where the messages are, if there are several nodes."""
        return ""

    def _holder(self, lease: float) -> LeasedMessages:
        """What knows the messages that this link holds."""
        raise NotImplementedError

    def _look_beside(self) -> Call:
        """The script that tells in how many seconds there is what ends no wait."""
        raise NotImplementedError

    def _popped(self, answer: t.Any) -> list[Delivery]:
        """What the script took."""
        raise NotImplementedError

    def _pause(self) -> float:
        """Seconds to wait for the next message."""
        raise NotImplementedError

    def _block(self, seconds: float, room: int) -> list[Delivery]:
        """Wait for a message, or for :meth:`wake`, and take what ended the wait."""
        raise NotImplementedError

    def _forwarding(self, forward: Forward, queue: str) -> Call:
        """The script that puts a copy into that queue and lets go of the message.

        :raises PublishRefused: if the copy cannot be written.
        """
        raise NotImplementedError

    def _is_unseen(self, forward: Forward) -> bool:
        """Whether a reader that waits already would come to know of it late."""
        raise NotImplementedError

    # -- settling and ending ----------------------------------------------------------

    def _end(self) -> None:
        quiet = self._reading.acquire(timeout=_GRACE)
        if not quiet:
            self._wire.interrupt()
        self._give_all_back()
        if quiet:
            self._wire.close()
            self._reading.release()

    def _wakeable(self) -> int | None:
        """The connection's number, by which another one ends its waits.

        Where that is not permitted the waits are short.
        """
        # There is no connection 0: the question is whether it may be asked.
        answers = self._wire.pipeline([("CLIENT", "ID"), ("CLIENT", "UNBLOCK", 0)])
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if not errors:
            return int(answers[0])
        if error_code(errors[0]) not in LACKING:
            raise translate_error(errors[0]) from errors[0]
        self._longest = min(self._longest, POLL_INTERVAL)
        self._shared.warn(
            "Blocking reads in Redis cannot be ended early:"
            f" {error_text(errors[0])}. So each lasts {POLL_INTERVAL:g} s at most,"
            " which costs Redis more, and retries and delays may be late by as much."
            " Permit it: 'ACL SETUSER … +client|id +client|unblock'."
        )
        return None

    def _watched(self, work: Callable[[], T]) -> T:
        """Do something with Redis; after an error this link is no good any more."""
        try:
            return work()
        except BrokerError:
            with self._gate:
                self.closed = True
            raise

    def _pop(self, room: int) -> list[Delivery]:
        """Take what is there, without waiting."""
        answer = check_answer(self._wire.run([self._held.create_pop_call(room)])[0])
        return self._looked(self._popped(answer))

    def _looked(self, found: list[Delivery]) -> list[Delivery]:
        self._dry = not found
        return found

    def _await_more(self, room: int) -> list[Delivery]:
        seconds = self._pause()
        with self._gate:
            if self.closed:
                return []
            waiting = self._waiting = seconds > 0 and not self._woken
            self._woken = False
            self._until = time.monotonic() + seconds
        try:
            return self._block(seconds, room) if waiting else self._pop(room)
        finally:
            with self._gate:
                self._waiting = False

    def _unblocked(self) -> bool:
        try:
            unblock = ("CLIENT", "UNBLOCK", self._id)
            server = self._shared.server
            done = server.commands([unblock], timeout=1.0, near=self._near())
        except BrokerUnavailable:
            if self.closed:
                self._wire.interrupt()
            return True
        except BrokerError:
            return True  # Then it waits to the end.
        return bool(done[0])

    def _prepared(self, forward: Forward) -> Call | PublishRefused | None:
        """The script that forwards a message, or why there is none.

        What was told to be somebody else's has nothing left to be done.
        """
        if forward.delivery.tag not in self._held:
            return None
        try:
            return self._forwarding(forward, self._place(forward))
        except PublishRefused:
            pass  # Nested so deeply that it could be read, and cannot be written.
        try:
            return self._forwarding(_simplified(forward), self._place(forward))
        except PublishRefused as error:
            return error

    def _place(self, forward: Forward) -> str:
        names = {
            Lane.MAIN: self.plan.name,
            Lane.SUSPECTS: self.plan.suspects,
            Lane.DEAD: self.plan.dead,
        }
        return names[forward.lane]

    def _forwarded(self, delivery: Delivery, answer: t.Any) -> Exception | None:
        if isinstance(answer, BrokerError):
            return answer
        self._held.mark_settled([delivery.tag])
        if answer:
            return None
        return LeaseLost(
            f"The message '{delivery.message.id}' of '{self.queue}' was not forwarded:"
            " its lease had ended and somebody else has it. Make 'QCONSUME_LEASE'"
            " longer if this process was only slow."
        )

    def _note_lost(self, lost: int) -> None:
        if lost:
            logger.warning(
                "Lost %s of '%s' to another worker: their leases had ended."
                " 'QCONSUME_LEASE' must be longer than this process ever halts",
                pluralize(lost, "message"),
                self.queue,
            )

    def _give_all_back(self) -> None:
        tags = self._held.forget_all()
        try:
            if tags:
                self._held.return_forgotten(tags, _GRACE)
        except BrokerError:
            self._shared.orphans.setdefault(self.queue, []).extend(tags)

    def _take_up_orphans(self) -> None:
        tags = self._shared.orphans.pop(self.queue, [])
        try:
            if tags:
                self._held.return_forgotten(tags, _GRACE)
        except BrokerError:
            self._shared.orphans.setdefault(self.queue, []).extend(tags)
            raise


def _simplified(forward: Forward) -> Forward:
    """The same without what may not be writable: it would be tried for ever."""
    delivery = forward.delivery
    properties = delivery.message.properties
    kept = {name: v for name, v in properties.items() if own_headers.is_simple(v)}
    message = replace(delivery.message, properties=kept)
    return replace(
        forward,
        delivery=Delivery(delivery.link, delivery.tag, message),
        headers=own_headers.keep_simple_values(forward.headers),
    )
