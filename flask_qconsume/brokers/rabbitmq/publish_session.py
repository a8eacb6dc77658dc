"""One connection that publishes, with its sequence numbers and confirmations.

The publisher's thread writes, a thread of the session reads. A session is never
reopened: messages that are unconfirmed when it breaks are sent over the next session.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from amqp.exceptions import ChannelError

from ...background_thread import BackgroundThread
from ...broker.topology import Topology
from ...errors import BrokerError
from ...errors import PublishRefused
from ...errors import Unroutable
from ...first_use import ForkGuard
from ...settings import Settings
from ...text import quote
from .amqp import frames
from .amqp.transport import is_timeout
from .connection import allow_slow_writes
from .connection import disconnect
from .connection import open_connection
from .declare import Declarer
from .errors import LOST
from .errors import translate_error
from .heartbeat import Heartbeat
from .pending_publish import PendingPublish
from .wakeup import Wakeup

#: Seconds to wait for the end of the reading thread.
_CLOSE_TIMEOUT_SECONDS = 2.0

#: Number of callers that are woken at once when many messages are confirmed at once.
_MAX_CALLERS_WOKEN = 20


class PublishSession:
    """A connection for publishing, on which the broker confirms each message.

    :param wakeup: Wakes the publisher's thread after errors, and after confirmations if
        the thread waits for them. Its ``lock`` guards all attributes that change.
    """

    def __init__(self, settings: Settings, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._lock = wakeup.lock
        self._sequence = 0
        #: Messages that were sent and are not confirmed yet, in the order of their
        #: sequence numbers.
        self.in_flight: dict[int, PendingPublish] = {}
        #: Whether the publisher waits for confirmations before it sends more.
        self.is_awaited = False
        #: Whether the broker asked us to stop publishing.
        self.blocked = False
        #: Why the session ended; ``None`` until then.
        self.failure: BaseException | None = None
        #: Names of wait queues that exist.
        self.declared_wait_queues: set[str] = set()
        self._connection = open_connection(settings, "publisher")
        self._heartbeat = Heartbeat(self._connection)
        self._reader: BackgroundThread | None = None
        self._fork_guard = ForkGuard()

    def start(self, topology: Topology, mode: str) -> None:
        """Declare the topology, enter confirm mode and start to read.

        :raises BrokerError: if a step fails; the session is unusable then.
        """
        try:
            self._channel = self._connection.channel()
            # Copied: when the connection is lost, the reader clears both objects, maybe
            # while the publisher writes.
            self._channel_number = self._channel.channel_id
            self._frame_max = self._connection.frame_max
            Declarer(self._channel, mode).declare_topology(topology)
            self._add_listeners()
            self._channel.confirm_select()
            allow_slow_writes(self._connection)
        except LOST as error:
            doing = "RabbitMQ: declaring before publishing failed"
            raise translate_error(error, doing) from error
        self._reader = BackgroundThread(self._read)
        self._reader.start()

    def _add_listeners(self) -> None:
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)
        self._connection.on_blocked = self._on_blocked
        self._connection.on_unblocked = self._on_unblocked

    @property
    def beat_interval(self) -> float:
        """Seconds between two calls of :meth:`beat`."""
        return self._heartbeat.interval

    def beat(self) -> None:
        """Send a heartbeat; the session fails if the broker has been silent."""
        try:
            self._heartbeat.beat()
        except (BrokerError, *LOST) as error:
            self._fail(error)

    def send(self, messages: Sequence[PendingPublish]) -> None:
        """Send messages; their results are set later, when confirmations arrive."""
        written: list[bytes] = []
        with self._lock:
            for message in messages:
                written.extend(self._register(message))
        try:
            self._connection.write(b"".join(written))
        except LOST as error:
            self._fail(error)

    def _register(self, message: PendingPublish) -> list[bytes]:
        """Give a message the next sequence number, and return its frames.

        Frames must be written in the order of the sequence numbers.
        """
        try:
            written = message.build_frames(self._channel_number, self._frame_max)
        except PublishRefused as error:
            message.finish(error)
            return []
        self._sequence += 1
        self.in_flight[self._sequence] = message
        return written

    def _read(self) -> None:
        try:
            while True:
                self._read_once()
        except BaseException as error:
            self._fork_guard.block_if_forked()
            self._fail(error)

    def _read_once(self) -> None:
        try:
            self._connection.read_available()
        except TimeoutError as error:
            if not is_timeout(error):
                raise

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self.failure = self.failure or error
            self._wakeup.notify()

    def _on_ack(self, tag: int, multiple: bool) -> None:
        with self._lock:
            confirmed = iter(self._pop_confirmed(tag, multiple))
        while self._finish_some(confirmed):
            # Let the woken callers publish their next messages now. If all callers woke
            # before any of these is written, the broker would idle meanwhile.
            time.sleep(0)

    def _finish_some(self, messages: Iterator[PendingPublish]) -> bool:
        """Set results of confirmed messages, until enough callers were woken.

        :returns: Whether it stopped at ``_MAX_CALLERS_WOKEN`` callers, with messages
            left over.
        """
        woken = 0
        with self._lock:
            for message in messages:
                woken += self._finish(message)
                if woken == _MAX_CALLERS_WOKEN:
                    break
            self._notify_publisher()
        return woken == _MAX_CALLERS_WOKEN

    def _notify_publisher(self) -> None:
        # Only if the publisher waits: otherwise each confirmation would wake it.
        if self.is_awaited or self.failure is not None:
            self._wakeup.notify()

    def _finish(self, message: PendingPublish) -> bool:
        """Set the result of a confirmed message; return true if its batch is done."""
        unroutable = message.return_error is not None and not message.done
        if not (unroutable and message.ours and message.claim_second_attempt()):
            return message.finish(message.return_error)
        # A queue of ours was deleted; the next session declares it again.
        self.failure = self.failure or message.return_error
        message.return_error = None
        self._sequence += 1
        self.in_flight[self._sequence] = message
        return False

    def _on_nack(self, tag: int, multiple: bool) -> None:
        with self._lock:
            for message in self._pop_confirmed(tag, multiple):
                message.finish(
                    PublishRefused(
                        f"RabbitMQ refused a message to {quote(message.routing_key)}:"
                        " a queue that it goes to is full, or has lost most of its"
                        " nodes."
                    )
                )
            self._notify_publisher()

    def _pop_confirmed(self, tag: int, multiple: bool) -> list[PendingPublish]:
        """Remove and return the messages that one confirmation refers to."""
        if not multiple:
            message = self.in_flight.pop(tag, None)
            return [] if message is None else [message]
        numbers: list[int] = []
        for number in self.in_flight:
            if number > tag:
                break
            numbers.append(number)
        return [self.in_flight.pop(number) for number in numbers]

    def _on_return(
        self, error: t.Any, exchange: str, routing_key: str, content: frames.Content
    ) -> None:
        # The broker returns messages in the order in which they were published, before
        # it confirms them, and does not tell their numbers. Of several equal messages
        # the first is as good as any.
        with self._lock:
            for message in self.in_flight.values():
                if message.is_returned_as(exchange, routing_key, content):
                    text = _describe_unroutable(exchange, routing_key)
                    message.return_error = Unroutable(text)
                    return

    def _on_blocked(self, reason: str) -> None:
        with self._lock:
            self.blocked = True

    def _on_unblocked(self) -> None:
        with self._lock:
            self.blocked = False
            self._wakeup.notify()

    @property
    def was_refused(self) -> bool:
        """True if RabbitMQ closed the channel because it refused a message."""
        return isinstance(self.failure, ChannelError)

    def close(self) -> None:
        """Close the connection, politely if it works; end the thread that reads it."""
        reader = self._reader
        if reader is not None and self.failure is None:
            self._send_close()
            reader.join(_CLOSE_TIMEOUT_SECONDS)
        disconnect(self._connection)
        if reader is not None:
            reader.join(_CLOSE_TIMEOUT_SECONDS)

    def _send_close(self) -> None:
        try:
            self._connection.write(frames.build_close())
        except LOST as error:
            self._fail(error)


def _describe_unroutable(exchange: str, routing_key: str) -> str:
    if not exchange:
        return (
            f"RabbitMQ has no queue {quote(routing_key)}, so no consumer would get the"
            " message."
        )
    return (
        f"No queue is bound to the exchange {quote(exchange)} for the routing key"
        f" {quote(routing_key)}, so no consumer would get the message. Is its consumer"
        " declared yet ('flask qconsume declare')? Publish with 'mandatory=False' if"
        " the message may be dropped."
    )
