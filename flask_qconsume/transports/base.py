"""Base classes of the kombu transports for Kafka and for Redis Streams.

A :class:`Transport` is one connection, and delivers messages to its channels. A
:class:`Channel` publishes, binds and consumes; its :class:`QoS` counts unacknowledged
messages against the prefetch. All three reach the broker by a :class:`Source`, the part
that differs from broker to broker.
"""

from __future__ import annotations

import abc
import contextlib
import threading
import time
import typing as t
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from queue import Empty

from kombu.transport import virtual

from ..errors import BrokerError
from ..errors import BrokerUnavailable
from ..settings import Settings
from .kombu_payload import Payload
from .kombu_url import find_current_url
from .ready_messages import ReadyMessages

#: Seconds that one wait for messages takes at most.
MAX_WAIT_SECONDS = 1.0
#: Seconds for which a dead letter of a kombu consumer is kept: a week.
DEAD_LETTER_SECONDS = 7 * 86_400.0
#: Messages that a channel holds at once without a prefetch, or with a larger one.
_MAX_HELD = 100
#: Seconds of a wait while a channel is full; it reads again when a message is settled.
_FULL_WAIT_SECONDS = 0.1
#: Deliveries after which the queues without a ready message are read, too.
_DELIVERIES_BETWEEN_READS = 10
_DEFAULT_LEASE_SECONDS = 60.0

#: A message that was read, and the name of its queue.
Read = tuple[Payload, str]

_Virtual: t.Any = virtual


class Source(abc.ABC):
    """The operations on a broker that a kombu connection of this package needs."""

    def __init__(self) -> None:
        #: A source that was closed is not opened again.
        self.closed = False
        #: Set when a message is settled, since a full channel may then read again.
        self.room = threading.Event()

    @abc.abstractmethod
    def check(self) -> None:
        """Raise a :class:`.BrokerError` if the broker does not answer."""

    @abc.abstractmethod
    def declare(self, queue: str) -> None:
        """Create a queue, unless it exists."""

    @abc.abstractmethod
    def exists(self, queue: str) -> bool:
        """Return whether a queue was declared, by any process."""

    @abc.abstractmethod
    def delete(self, queue: str, exchange: str) -> None:
        """Delete a queue, and its bindings to an exchange."""

    @abc.abstractmethod
    def depth(self, queue: str) -> int:
        """Count the messages of a queue that wait for a consumer."""

    @abc.abstractmethod
    def put(self, queue: str, payload: Payload) -> None:
        """Publish to one queue by its name; return once the broker has confirmed."""

    @abc.abstractmethod
    def read(self, rooms: Mapping[str, int], seconds: float) -> Sequence[Read]:
        """Return messages of several queues; wait up to ``seconds`` for the first one.

        :param rooms: By queue, the highest number of messages to return.
        """

    @abc.abstractmethod
    def get(self, queue: str) -> Payload | None:
        """Take one message of a queue, or return ``None`` if the queue is empty."""

    @abc.abstractmethod
    def ack(self, tag: str) -> None:
        """Acknowledge a message, at once or at the next :meth:`flush`."""

    def flush(self) -> None:
        """Send acknowledgements that were kept back."""
        return

    @abc.abstractmethod
    def reject(self, tag: str, requeue: bool) -> None:
        """Put a message back, marked as redelivered, or make it a dead letter."""

    @abc.abstractmethod
    def give_back(self, tags: Iterable[str]) -> None:
        """Put messages back that were not handled, not marked as redelivered."""

    def cancel(self, queue: str) -> None:
        """Stop reading a queue."""
        return

    @abc.abstractmethod
    def close(self) -> None:
        """Give back all unacknowledged messages, and close the connections."""


def read_settings(
    url: str, options: Mapping[str, t.Any], names: Iterable[str]
) -> Settings:
    """Create a broker's settings from a kombu connection's URL and transport options.

    :param names: The transport options that the broker knows; kombu's own are skipped.
    """
    return Settings.from_config(
        {
            "QCONSUME_BROKER_URL": url,
            "QCONSUME_TRANSPORT_OPTIONS": {
                name: options[name] for name in names if name in options
            },
            "QCONSUME_LEASE": float(options.get("lease", _DEFAULT_LEASE_SECONDS)),
        }
    )


class QoS(_Virtual.QoS):  # type: ignore[misc]
    """Counts the unacknowledged messages of a channel, to keep its prefetch."""

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._delivered: OrderedDict[str, t.Any]

    def ack(self, delivery_tag: str) -> None:
        source = self.channel.source
        source.ack(delivery_tag)
        if not self.channel.connection.ready:
            source.flush()
        self._settled(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.source.reject(delivery_tag, requeue)
        self._settled(delivery_tag)

    def restore_unacked(self) -> list[t.Any]:
        tags = list(self._delivered)
        self._delivered.clear()
        with contextlib.suppress(BrokerError):  # Messages return when leases end.
            self.channel.source.flush()
            self.channel.source.give_back(tags)
        return []

    def room(self) -> int:
        """Return how many more messages the channel may get."""
        estimate = self.can_consume_max_estimate()
        return _MAX_HELD if estimate is None else min(estimate, _MAX_HELD)

    def _settled(self, tag: str) -> None:
        self._delivered.pop(tag, None)
        self.channel.source.room.set()


class Channel(_Virtual.Channel):  # type: ignore[misc]
    """A kombu channel: publishes, binds and consumes through a :class:`Source`."""

    QoS = QoS
    #: Bodies are stored as they are, not as base64.
    body_encoding = None
    #: kombu calls ``_queue_bind`` only for transports that support fanout.
    supports_fanout = True
    from_transport_options = ()

    @property
    def source(self) -> t.Any:
        return self.connection.source

    def basic_consume(self, queue: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        if queue in self.connection._callbacks:
            raise ValueError(
                f"The queue '{queue}' has a consumer on this connection already, and"
                " kombu would forget that one. Use another connection."
            )
        return super().basic_consume(queue, *args, **kwargs)

    def basic_cancel(self, consumer_tag: str) -> t.Any:
        queue = self._tag_to_queue.get(consumer_tag)
        result = super().basic_cancel(consumer_tag)
        if queue is not None:
            ready = self.connection.ready.remove(queue)
            self.source.give_back(p["properties"]["delivery_tag"] for p in ready)
            self.source.cancel(queue)
        return result

    def close(self) -> None:
        if not self.closed:
            super().close()

    def _get(self, queue: str, timeout: float | None = None) -> Payload:
        payload = self.source.get(queue)
        if payload is None:
            raise Empty()
        return t.cast(Payload, payload)

    def _put(self, queue: str, message: Payload, **kwargs: t.Any) -> None:
        self.source.put(queue, message)

    def _size(self, queue: str) -> int:
        return int(self.source.depth(queue))

    def _purge(self, queue: str) -> int:
        count = 0
        while (payload := self.source.get(queue)) is not None:
            self.source.ack(payload["properties"]["delivery_tag"])
            count += 1
        self.source.flush()
        return count

    def _new_queue(self, queue: str, **kwargs: t.Any) -> None:
        self.source.declare(queue)

    def _has_queue(self, queue: str, **kwargs: t.Any) -> bool:
        return bool(self.source.exists(queue))

    def _delete(self, queue: str, exchange: str, *meta: t.Any, **_: t.Any) -> None:
        self.source.delete(queue, exchange)


class Transport(_Virtual.Transport):  # type: ignore[misc]
    """A kombu connection: reads its channels' queues, and delivers messages.

    A subclass sets the channel's class and the driver's name, and creates the source.
    """

    can_parse_url = True
    polling_interval = None
    implements = _Virtual.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset(["direct", "topic", "fanout"])
    )
    connection_errors = (*_Virtual.Transport.connection_errors, BrokerUnavailable)
    channel_errors = (*_Virtual.Transport.channel_errors, BrokerError)

    def __init__(self, client: t.Any, **kwargs: t.Any) -> None:
        super().__init__(client, **kwargs)
        self.source = self._create_source(self._url())
        #: Messages that were read and not delivered yet.
        self.ready = ReadyMessages()
        self._deliveries = 0

    def _create_source(self, url: str) -> Source:
        raise NotImplementedError

    def _url(self) -> str:
        """Return the URL of the server to which kombu is connected now."""
        return find_current_url(self.client)

    def establish_connection(self) -> t.Any:
        if self.source.closed:
            self.source = self._create_source(self._url())
        self.source.check()
        return super().establish_connection()

    def close_connection(self, connection: t.Any) -> None:
        self.ready.clear()
        super().close_connection(connection)
        self.source.close()

    def drain_events(self, connection: t.Any, timeout: float | None = None) -> None:
        # The first read may join a group, so the time for messages starts after it.
        self._read_ready()
        until = None if timeout is None else time.monotonic() + timeout
        while not self._deliver_ready():
            seconds_left = (
                MAX_WAIT_SECONDS if until is None else until - time.monotonic()
            )
            if seconds_left <= 0:
                raise TimeoutError()
            self.source.room.clear()
            rooms = self._rooms()
            rooms_left = _with_room(rooms)
            is_full = len(rooms_left) < len(rooms)
            seconds_left = min(
                seconds_left, _FULL_WAIT_SECONDS if is_full else MAX_WAIT_SECONDS
            )
            if rooms_left:
                self.ready.add(self.source.read(rooms_left, seconds_left))
            else:
                self.source.room.wait(seconds_left)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        head, at, address = uri.rpartition("@")
        user, colon, _ = head.rpartition(":")
        is_safe = include_password or not at or "//" in head.rpartition(":")[2]
        return uri if is_safe else f"{user}{colon}{mask}{at}{address}"

    def _read_ready(self) -> None:
        """Read messages from the broker if none are ready.

        While messages are ready, only one of several calls reads, and only from queues
        without ready messages.
        """
        self._deliveries += 1
        rooms_left = _with_room(self._rooms())
        if self.ready:
            if self._deliveries % _DELIVERIES_BETWEEN_READS:
                return
            rooms_left = {
                q: room for q, room in rooms_left.items() if not self.ready.count(q)
            }
        if rooms_left:
            self.ready.add(self.source.read(rooms_left, 0.0))

    def _deliver_ready(self) -> bool:
        """Deliver one ready message; return false if that is not possible."""
        payload_and_queue = self.ready.take(self._may_deliver)
        if payload_and_queue is not None:
            self._deliver(*payload_and_queue)
        return payload_and_queue is not None

    def _may_deliver(self, queue: str) -> bool:
        channel = next((c for c in self.channels if queue in c._active_queues), None)
        return channel is None or channel.qos.can_consume()

    def _rooms(self) -> dict[str, int]:
        """Return for each consumed queue how many messages may be read.

        The queues of a channel share its prefetch.
        """
        rooms = {}
        for channel in self.channels:
            queues, room = set(channel._active_queues), channel.qos.room()
            share = max(1, room // len(queues)) if room and queues else 0
            for queue in queues:
                rooms[queue] = max(0, share - self.ready.count(queue))
        return rooms


def _with_room(rooms: Mapping[str, int]) -> dict[str, int]:
    return {queue: room for queue, room in rooms.items() if room}
