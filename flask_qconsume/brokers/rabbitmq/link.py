"""A link: one connection with one channel, which consumes one queue.

One greenlet reads; any greenlet may write, under the connection's lock. Requests with
answers are made only while the link is opened, and by :meth:`RabbitLink.close`, which
waits for the reader's end or reads the answers itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from collections.abc import Sequence

from ...broker.given_queues import may_starve
from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.topology import QueuePlan
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...settings import Settings
from .ack_barrier import barrier_requests
from .amqp import frames
from .amqp.transport import is_timeout
from .connection import allow_slow_writes
from .connection import disconnect
from .connection import open_connection
from .declare import Declarer
from .delivery_tags import DeliveryTags
from .errors import LOST
from .errors import explain_error
from .errors import translate_error
from .forwarding import build_forward
from .heartbeat import Heartbeat
from .incoming import convert_content
from .incoming import convert_delivery
from .pending_publish import PendingPublish
from .pending_publish import Publish

_CONSUMER_TAG = "qconsume"

#: Seconds for the close of an intact connection: the broker first sends the messages
#: that are already on their way.
_CLOSE_TIMEOUT_SECONDS = 5.0
#: Seconds that a step of the close has even after the time limit.
_MIN_TIMEOUT_SECONDS = 0.01


class RabbitLink(Link):
    """Consumes one queue over a connection of its own, which is used only once.

    :param publish: Publishes the copies for :meth:`forward`.
    """

    pushes = True

    def __init__(
        self,
        settings: Settings,
        plan: QueuePlan,
        lane: Lane,
        prefetch: int,
        publish: Publish,
    ) -> None:
        super().__init__(plan, lane)
        self.may_starve = lane is Lane.MAIN and may_starve(plan.given)
        self._settings = settings
        self._publish = publish
        self._received: list[Delivery] = []
        self._delivery_tags = DeliveryTags()
        self._cancelled = False
        self._paused = False
        #: Held by the thread or greenlet that reads the socket.
        self._read_lock = threading.Lock()
        #: Held for ever by the first call of :meth:`close`.
        self._close_lock = threading.Lock()
        name = f"{plan.consumer}: {self.queue}"
        self._connection = open_connection(settings, name)
        try:
            self._start(prefetch)
        except BaseException as error:
            disconnect(self._connection)
            if isinstance(error, LOST):
                doing = f"Consuming '{self.queue}' of '{plan.consumer}' failed"
                raise translate_error(error, doing) from error
            raise

    def _start(self, prefetch: int) -> None:
        self._heartbeat = Heartbeat(self._connection)
        self.keep_alive_interval = self._heartbeat.interval
        self._channel = self._connection.channel()
        # Copied: a lost connection's objects may be torn down at any moment.
        self._channel_number = self._channel.channel_id
        self._declare(Declarer(self._channel, self._settings.declare))
        self._channel.on_raw_delivery = self._on_raw_delivery
        self._channel.basic_qos(0, prefetch, False)
        self._channel.basic_consume(
            self.queue,
            _CONSUMER_TAG,
            callback=self._on_content,
            on_cancel=self._on_cancel,
            arguments=self._consumer_arguments,
        )
        allow_slow_writes(self._connection)

    def _declare(self, declarer: Declarer) -> None:
        if self.lane is Lane.SUSPECTS:
            # A given queue may be exclusive: then only the other link may declare it.
            declarer.declare_side_queues(self.plan)
            return
        declarer.declare_exchange(self._settings.exchange)
        declarer.declare_plan(self.plan)

    @property
    def _consumer_arguments(self) -> t.Any:
        """The consumer arguments of a given :class:`kombu.Queue`, if there are any."""
        given_queue = self.plan.given if self.lane is Lane.MAIN else None
        return getattr(given_queue, "consumer_arguments", None)

    def read(self, room: int) -> Sequence[Delivery]:
        with self._read_lock:
            while not self._received:
                self._read_once()
            deliveries, self._received = self._received, []
            return deliveries

    def _read_once(self) -> None:
        if self.closed:
            raise self._closed_error()
        if self._cancelled:
            raise self._lose("the broker cancelled the consumer: its queue was deleted")
        try:
            self._connection.read_available()
        except Exception as error:
            if not is_timeout(error):
                raise self._lose(explain_error(error)) from error

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._write(lambda: self._settle(deliveries, frames.build_ack))

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self._write(lambda: self._settle(deliveries, frames.build_requeue))

    def _settle(
        self, deliveries: Sequence[Delivery], build_frame: t.Callable[..., bytes]
    ) -> bytes:
        """Mark deliveries as settled; return the AMQP frames that acknowledge them."""
        settled = self._delivery_tags.settle(
            d.tag for d in deliveries if d.link is self
        )
        channel = self._channel_number
        return b"".join(
            build_frame(channel, tag, multiple=multiple) for tag, multiple in settled
        )

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        results = self._publish([self._build_forward(forward) for forward in forwards])
        confirmed = [
            forward.delivery
            for forward, error in zip(forwards, results, strict=True)
            if error is None
        ]
        if confirmed:
            self.ack(confirmed)
        return results

    def _build_forward(self, forward: Forward) -> PendingPublish:
        exchange = self._settings.exchange
        return build_forward(forward, self.plan, exchange, self._connection.frame_max)

    def keep_alive(self) -> None:
        if self.closed:
            raise self._closed_error()
        try:
            self._heartbeat.beat()
        except (BrokerError, *LOST) as error:
            raise self._lose(explain_error(error)) from error

    def pause(self) -> None:
        if self._paused or self.closed:
            return
        self._paused = True
        channel = self._channel_number
        self._write(lambda: frames.build_cancel(channel, _CONSUMER_TAG, nowait=True))

    def close(self) -> None:
        if not self._close_lock.acquire(blocking=False):
            return
        healthy, self.closed = not self.closed, True
        if healthy:
            with contextlib.suppress(Exception):
                self._close_politely()
        disconnect(self._connection)

    def _close_politely(self) -> None:
        """Close the connection by AMQP's Close, and wait for RabbitMQ's answer.

        The broker handles our frames in order, so its answer means that our last
        acknowledgements took effect. Closing a socket with unread bytes would reset the
        connection, and destroy the frames that are on their way to the broker.
        """
        deadline = time.monotonic() + _CLOSE_TIMEOUT_SECONDS
        for request in barrier_requests(self._channel, self.queue):
            self._write_until(deadline, request.frame)
            self._read_until(deadline, request.is_answered)
        self._write_until(deadline, frames.build_close())
        self._read_until(deadline, lambda: False)

    def _write_until(self, deadline: float, data: bytes) -> None:
        seconds = _seconds_until(deadline)
        if not self._connection.write_lock.acquire(timeout=seconds):
            raise TimeoutError("another greenlet is stuck in a write")
        try:
            self._connection.sock.settimeout(seconds)
            self._connection.write_locked(data)
        finally:
            self._connection.write_lock.release()

    def _read_until(self, deadline: float, is_answered: t.Callable[[], bool]) -> None:
        # A reader that is reading leaves after the answer, since the link is closed.
        # Then, or without a reader, this method reads.
        if not self._read_lock.acquire(timeout=_seconds_until(deadline)):
            return
        try:
            while self._connection.connected and not is_answered():
                self._connection.sock.settimeout(_seconds_until(deadline))
                self._connection.read_available()
        finally:
            self._read_lock.release()

    def _write(self, build: t.Callable[[], bytes]) -> None:
        """Call ``build`` for frames, and write them, unless the link is closed."""
        try:
            with self._connection.write_lock:
                # Checked under the lock, which close() takes for its last frames.
                if self.closed:
                    raise self._closed_error()
                if data := build():
                    self._connection.write_locked(data)
        except BrokerError:
            raise
        except LOST as error:
            raise self._lose(explain_error(error)) from error

    def _closed_error(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"The link to '{self.queue}' is closed.")

    def _lose(self, why: str) -> BrokerUnavailable:
        """Mark the link as closed after an error; return the error to be raised."""
        self.closed = True
        return BrokerUnavailable(f"The connection that consumes '{self.queue}': {why}")

    def _on_content(self, content: frames.Content) -> None:
        tag = content.delivery_info["delivery_tag"]
        self._received.append(Delivery(self, tag, convert_content(content, self.queue)))

    def _on_raw_delivery(self, delivery: frames.BasicDeliver) -> None:
        message = convert_delivery(delivery, self.queue)
        self._received.append(Delivery(self, delivery.tag, message))

    def _on_cancel(self, consumer_tag: str) -> None:
        self._cancelled = True


def _seconds_until(deadline: float) -> float:
    return max(_MIN_TIMEOUT_SECONDS, deadline - time.monotonic())
