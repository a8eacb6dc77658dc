"""A link: one connection and one channel that consume one queue.

Who does what: one greenlet reads and nobody else does; any greenlet writes, under the
connection's lock. The only conversation with an answer, beside the opening, is the
farewell in :meth:`RabbitLink.close`, which waits for the reader or takes its place.
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
from .ack_barrier import barrier
from .amqp import frames
from .amqp.transport import is_timeout
from .connection import hang_up
from .connection import open_connection
from .connection import opened
from .declare import Declaring
from .delivery_tags import Tags
from .errors import LOST
from .errors import explain_error
from .errors import translate_error
from .forwarding import forwarded
from .heartbeat import Pulse
from .incoming import arrived
from .incoming import delivered
from .pending_publish import Parcel

_CONSUMER_TAG = "qconsume"

#: How long a farewell may take: the broker first sends what it had on its way to us.
_CLOSE_WAIT = 5.0

Publish = t.Callable[[Sequence[Parcel]], list[Exception | None]]


class RabbitLink(Link):
    """One generation of deliveries of one queue.

    :param publish: Publishes the copies, over the process's publisher.
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
        self._arrived: list[Delivery] = []
        self._tags = Tags()
        self._cancelled = False
        self._paused = False
        #: Held by whoever reads the socket.
        self._reading = threading.Lock()
        self._closing = threading.Lock()
        self._raw = open_connection(settings, f"{plan.consumer}: {self.queue}")
        try:
            self._start(prefetch)
        except BaseException as error:
            hang_up(self._raw)
            if isinstance(error, LOST):
                raise self._refused(error) from error
            raise

    def _start(self, prefetch: int) -> None:
        self._pulse = Pulse(self._raw)
        self.keep_alive_interval = self._pulse.interval
        self._channel = self._raw.channel()
        # Kept here: what is lost is torn down at any moment, the number with it.
        self._number = self._channel.channel_id
        self._declare(Declaring(self._channel, self._settings.declare))
        self._channel.on_delivered = self._on_delivered
        self._channel.basic_qos(0, prefetch, False)
        self._channel.basic_consume(
            self.queue,
            _CONSUMER_TAG,
            callback=self._on_message,
            on_cancel=self._on_cancel,
            arguments=self._consumer_arguments,
        )
        opened(self._raw)

    def _declare(self, declaring: Declaring) -> None:
        if self.lane is Lane.SUSPECTS:
            # A given queue may be exclusive: then it is the other link's alone.
            declaring.side_queues(self.plan)
            return
        declaring.exchange(self._settings.exchange)
        declaring.queues(self.plan)

    @property
    def _consumer_arguments(self) -> t.Any:
        """Those of a given queue; the lane of suspects is ours."""
        given = self.plan.given if self.lane is Lane.MAIN else None
        return getattr(given, "consumer_arguments", None)

    def _refused(self, error: BaseException) -> BrokerError:
        consumer = self.plan.consumer
        return translate_error(
            error, f"Consuming '{self.queue}' of '{consumer}' failed"
        )

    def read(self, room: int) -> Sequence[Delivery]:
        with self._reading:
            while not self._arrived:
                self._read_once()
            deliveries, self._arrived = self._arrived, []
            return deliveries

    def _read_once(self) -> None:
        if self.closed:
            raise BrokerUnavailable(f"The link to '{self.queue}' is closed.")
        if self._cancelled:
            raise self._lost("the broker cancelled the consumer: its queue was deleted")
        try:
            self._raw.read_available()
        except Exception as error:
            if not is_timeout(error):
                raise self._lost(explain_error(error)) from error

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._write(lambda: self._settlements(deliveries, frames.ack))

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self._write(lambda: self._settlements(deliveries, frames.requeue))

    def _settlements(
        self, deliveries: Sequence[Delivery], frame: t.Callable[..., bytes]
    ) -> bytes:
        done = self._tags.done(d.tag for d in deliveries if d.link is self)
        channel = self._number
        return b"".join(frame(channel, tag, multiple=multi) for tag, multi in done)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        results = self._publish([self._parcel(forward) for forward in forwards])
        there = [
            forward.delivery
            for forward, error in zip(forwards, results, strict=True)
            if error is None
        ]
        if there:
            self.ack(there)
        return results

    def _parcel(self, forward: Forward) -> Parcel:
        exchange = self._settings.exchange
        return forwarded(forward, self.plan, exchange, self._raw.frame_max)

    def keep_alive(self) -> None:
        if self.closed:
            raise BrokerUnavailable(f"The link to '{self.queue}' is closed.")
        try:
            self._pulse.beat()
        except (BrokerError, *LOST) as error:
            raise self._lost(explain_error(error)) from error

    def pause(self) -> None:
        if self._paused or self.closed:
            return
        self._paused = True
        channel = self._number
        self._write(lambda: frames.cancel(channel, _CONSUMER_TAG, nowait=True))

    def close(self) -> None:
        if not self._closing.acquire(blocking=False):
            return
        healthy, self.closed = not self.closed, True
        if healthy:
            with contextlib.suppress(Exception):
                self._part()
        hang_up(self._raw)

    def _part(self) -> None:
        """Say goodbye, and read until the broker has answered.

        It handles what we wrote in order, so its answer means that our last
        acknowledgements count. A socket closed with something unread in it is reset,
        which destroys what is still on its way to the broker.
        """
        deadline = time.monotonic() + _CLOSE_WAIT
        for step in barrier(self._channel, self.queue):
            self._say(step.request, deadline)
            self._read_until(step.answered, deadline)
        self._say(frames.close_connection(), deadline)
        self._read_until(lambda: False, deadline)

    def _say(self, data: bytes, deadline: float) -> None:
        left = max(0.01, deadline - time.monotonic())
        if not self._raw.writing.acquire(timeout=left):
            raise TimeoutError("somebody is stuck in a write")
        try:
            self._raw.sock.settimeout(left)
            self._raw.write_held(data)
        finally:
            self._raw.writing.release()

    def _read_until(self, over: t.Callable[[], bool], deadline: float) -> None:
        # A reader at it sees the answer, and leaves: the link is closed. Then, or if
        # there was none, it is up to us.
        if not self._reading.acquire(timeout=max(0.01, deadline - time.monotonic())):
            return
        try:
            while self._raw.connected and not over():
                self._raw.sock.settimeout(max(0.01, deadline - time.monotonic()))
                self._raw.read_available()
        finally:
            self._reading.release()

    def _write(self, data: t.Callable[[], bytes]) -> None:
        """Write what ``data`` returns, unless this generation is over."""
        try:
            with self._raw.writing:
                # Looked at under the lock: close() says goodbye under it.
                if self.closed:
                    raise BrokerUnavailable(f"The link to '{self.queue}' is closed.")
                if written := data():
                    self._raw.write_held(written)
        except BrokerError:
            raise
        except LOST as error:
            raise self._lost(explain_error(error)) from error

    def _lost(self, why: str) -> BrokerUnavailable:
        self.closed = True
        return BrokerUnavailable(f"The connection that consumes '{self.queue}': {why}")

    def _on_message(self, content: frames.Content) -> None:
        tag = content.delivery_info["delivery_tag"]
        self._arrived.append(Delivery(self, tag, arrived(content, self.queue)))

    def _on_delivered(self, delivery: frames.BasicDeliver) -> None:
        message = delivered(delivery, self.queue)
        self._arrived.append(Delivery(self, delivery.tag, message))

    def _on_cancel(self, consumer_tag: str) -> None:
        self._cancelled = True
