"""The publisher's thread: connects, declares, sends messages and heartbeats.

A lost connection is replaced by a new one, which sends the unconfirmed messages again.
Confirmations are read by a thread of the :class:`~.publish_session.PublishSession`.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections import deque
from collections.abc import Sequence

from amqp.exceptions import NotFound

from ...broker.topology import Topology
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...errors import PublishRefused
from ...errors import Unroutable
from ...first_use import ForkGuard
from ...logs import get_logger
from ...settings import Settings
from ...text import quote
from .connection import open_channel
from .declare import Declarer
from .errors import explain_error
from .errors import lacks_exchange
from .errors import translate_error
from .pending_publish import PendingPublish
from .publish_session import PublishSession
from .wait_queues import WaitQueue
from .wakeup import Wakeup

logger = get_logger("flask_qconsume.publisher")

#: Number of messages that may be in flight: sent, and not confirmed yet.
_MAX_IN_FLIGHT = 1000
#: While more than ``_BUSY_IN_FLIGHT`` messages are in flight and fewer than
#: ``_FULL_BATCH`` wait, sending lingers for ``_LINGER_SECONDS``, to fill a batch:
#: writing and confirming many messages together is faster.
_BUSY_IN_FLIGHT = 10
_FULL_BATCH = 20
_LINGER_SECONDS = 0.0005
#: Bytes of bodies and properties in a batch; the message that exceeds it is the last.
_BATCH_BYTES = 256 * 1024
#: Seconds between two attempts to connect: at first, doubled each time, at most.
_MIN_BACKOFF_SECONDS = 0.05
_MAX_BACKOFF_SECONDS = 1.0


class PublishLoop:
    """Connects to RabbitMQ and sends waiting messages, in the publisher's thread."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self._settings = settings
        self._topology = topology
        self._fork_guard = ForkGuard()
        #: Its lock guards all attributes here and of the session.
        self.wakeup = Wakeup()
        self._lock = self.wakeup.lock
        #: Messages to send.
        self.waiting: deque[PendingPublish] = deque()
        #: The connection; ``None`` while there is none.
        self.session: PublishSession | None = None
        #: Set to end :meth:`run`.
        self.closing = False
        #: Why there is no connection.
        self.problem = ""
        #: Whether there has been a connection.
        self.was_connected = False
        self._backoff_seconds = 0.0
        self._next_beat = 0.0
        #: Messages to be sent one at a time: the broker closed the channel because of
        #: one of them, and did not tell which.
        self._send_singly = 0

    def run(self) -> None:
        """Send messages until :attr:`closing` is set."""
        while not self.closing and not self._fork_guard.is_forked:
            try:
                self._step()
            except BaseException as error:
                # Goes on, because no other thread publishes in this process. Under
                # gevent this is a greenlet, which code of the app may kill.
                if not _is_thread_refusal(error):
                    logger.exception("the publisher restarts after an error")
                self._restart(error)
        self._fork_guard.block_if_forked()
        self._end()

    def _step(self) -> None:
        session = self.session
        if session is not None and session.failure is not None:
            self._retire(session)
        elif not self._can_send(session):
            self._rest(session)
        elif session is None:
            self._connect()
        else:
            self._send(session)

    def _can_send(self, session: PublishSession | None) -> bool:
        """Return whether a message waits, and can be sent now or after connecting."""
        with self._lock:
            while self.waiting and self.waiting[0].done:
                self.waiting.popleft()
            return bool(self.waiting) and self._count_room(session) > 0

    def _count_room(self, session: PublishSession | None) -> int:
        """Return how many more messages may be sent without a confirmation."""
        if session is None:
            return 1
        if session.blocked:
            return 0
        limit = 1 if self._send_singly else _MAX_IN_FLIGHT
        return limit - len(session.in_flight)

    def _rest(self, session: PublishSession | None) -> None:
        """Wait until a message is published, or a heartbeat is due."""
        with self._lock:
            if self.closing or (session is not None and session.failure):
                return
            if self.waiting and self._count_room(session) > 0:
                return
            if session is not None:
                session.is_awaited = bool(self.waiting)
        self.wakeup.wait(self._seconds_until_beat(session))
        self._beat_if_due(session)

    def _seconds_until_beat(self, session: PublishSession | None) -> float | None:
        if session is None:
            return None
        return max(0.0, self._next_beat - time.monotonic())

    def _beat_if_due(self, session: PublishSession | None) -> None:
        if session is not None and self._seconds_until_beat(session) == 0.0:
            self._beat(session)

    def _beat(self, session: PublishSession) -> None:
        self._next_beat = time.monotonic() + session.beat_interval
        session.beat()

    def _connect(self) -> None:
        session = None
        try:
            session = PublishSession(self._settings, self.wakeup)
            session.start(self._topology, self._settings.declare)
        except BrokerError as error:
            if session is not None:
                session.close()
            self._back_off(error)
            return
        with self._lock:
            self.session, self.problem, self._backoff_seconds = session, "", 0.0
            self.was_connected = True
        self._beat(session)

    def _back_off(self, error: BrokerError) -> None:
        """Pause before the next attempt to connect; or fail what waits, if refused."""
        with self._lock:
            self.problem = str(error)
            if not isinstance(error, BrokerUnavailable):
                # A refusal, or a topology that does not match: waiting does not help.
                self._fail_waiting(error)
                return
        doubled = self._backoff_seconds * 2 or _MIN_BACKOFF_SECONDS
        self._backoff_seconds = min(_MAX_BACKOFF_SECONDS, doubled)
        until = time.monotonic() + self._backoff_seconds
        while not self.closing and (seconds_left := until - time.monotonic()) > 0:
            self.wakeup.wait(seconds_left)

    def _fail_waiting(self, error: BaseException) -> None:
        reason: Exception = (
            error
            if _is_thread_refusal(error)
            else translate_error(error, "Not published")
        )
        while self.waiting:
            self.waiting.popleft().finish(reason)

    def _send(self, session: PublishSession) -> None:
        if len(session.in_flight) > _BUSY_IN_FLIGHT and len(self.waiting) < _FULL_BATCH:
            time.sleep(_LINGER_SECONDS)
        messages = self._take_batch(session)
        for message in messages:
            self._declare_wait_queue_of(message, session)
        session.send([message for message in messages if not message.done])
        self._beat_if_due(session)

    def _take_batch(self, session: PublishSession) -> list[PendingPublish]:
        messages: list[PendingPublish] = []
        size = 0
        with self._lock:
            room = self._count_room(session)
            while self.waiting and len(messages) < room and size < _BATCH_BYTES:
                message = self.waiting.popleft()
                if not message.done:
                    messages.append(message)
                    size += len(message.body) + len(message.properties)
            self._send_singly = max(0, self._send_singly - len(messages))
        return messages

    def _declare_wait_queue_of(
        self, message: PendingPublish, session: PublishSession
    ) -> None:
        queue = message.wait_queue
        if queue is None or queue.name in session.declared_wait_queues:
            return
        try:
            self._declare(queue)
            session.declared_wait_queues.add(queue.name)
        except BrokerError as error:
            with self._lock:
                message.finish(error)

    def _declare(self, queue: WaitQueue) -> None:
        """Declare a wait queue, on a new connection that only this thread reads."""
        if self._settings.declare == "never":
            return
        with open_channel(self._settings, f"declaring '{queue.name}'") as channel:
            queue.declare(Declarer(channel, self._settings.declare))

    def _retire(self, session: PublishSession) -> None:
        """Close a failed connection, and send its unconfirmed messages again later."""
        session.close()
        with self._lock:
            self.session = None
            self.problem = explain_error(session.failure or Exception())
            again = [m for m in session.in_flight.values() if not m.done]
            session.in_flight.clear()
            if session.was_refused:
                self._fail_refused(session.failure, again)
            self.waiting.extendleft(m for m in reversed(again) if not m.done)

    def _fail_refused(
        self, error: BaseException | None, messages: list[PendingPublish]
    ) -> None:
        """Fail the message that made RabbitMQ close the channel.

        RabbitMQ does not say which message that was. If several messages are possible,
        all of them are sent again, one at a time.
        """
        problem = error or Exception()
        for message in _find_refused(problem, messages):
            if not isinstance(problem, NotFound):
                text = f"RabbitMQ refused the message: {explain_error(problem)}"
                message.finish(PublishRefused(text))
            elif not (self._declares(message) and message.claim_second_attempt()):
                message.finish(_missing_exchange(message))
        self._send_singly = len([message for message in messages if not message.done])

    def _declares(self, message: PendingPublish) -> bool:
        """Return whether a new connection declares the message's exchange again."""
        return message.ours or message.exchange == self._topology.exchange

    def _restart(self, error: BaseException) -> None:
        """After an unexpected error, close the connection and fail all messages."""
        session, self.session = self.session, None
        if session is not None:
            session.close()
        with self._lock:
            self._fail_waiting(error)
        self._back_off(BrokerUnavailable(f"{type(error).__name__}: {error}"))

    def _end(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()
        with self._lock:
            unconfirmed = [*(session.in_flight.values() if session else ())]
            for message in unconfirmed:
                message.finish(BrokerUnavailable("The publisher was closed."))
            self._fail_waiting(BrokerUnavailable("The publisher was closed."))


def _is_thread_refusal(error: BaseException) -> t.TypeGuard[RuntimeError]:
    """Return whether an error says that Python is exiting and starts no threads.

    Under gevent, looking up the broker's address needs a thread.
    """
    return isinstance(error, RuntimeError) and not threading.main_thread().is_alive()


def _find_refused(
    error: BaseException, messages: Sequence[PendingPublish]
) -> Sequence[PendingPublish]:
    """Return the messages that an error of RabbitMQ may refer to."""
    named = [m for m in messages if lacks_exchange(error, m.exchange)]
    return named or (messages if len(messages) == 1 else [])


def _missing_exchange(message: PendingPublish) -> Unroutable:
    return Unroutable(
        f"RabbitMQ has no exchange {quote(message.exchange)}, so no consumer would get"
        " the message. Declare it on the broker, or publish to another one."
    )
