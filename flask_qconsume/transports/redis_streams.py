"""kombu's transport for Redis Streams: ``kombu.Connection("redis-streams://…")``.

It stands on the scripts of our own broker and shares its streams: what either of them
publishes, the other one consumes. Importing this module makes the scheme known to
kombu. It knows nothing about consumers of ours, and needs no Flask.

* Messages are held by a lease, prolonged by a thread as long as the process lives.
* Redis hears of acknowledgements together while there is more to deliver that was read
  already, 0.05 s later at the most. Killed in that time, a process gets them again.
* Bindings lie in Redis; a fanout exchange is a topic exchange bound with ``#``, so it
  is durable. ``#`` and ``*`` mean what AMQP says.
* ``reject(requeue=True)`` gives a message back to the front, to be read as redelivered;
  ``reject()`` makes it a dead letter in ``{<queue>}.dead``.
* A header ``x-delay`` holds a message back, and what outlives its ``expiration`` is
  dropped when it is read; both in ms.
* ``lease`` among the transport options is in seconds, 60 unless given.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from queue import Empty

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import virtual

from ..broker import headers as own_headers
from ..broker import properties as basic_properties
from ..brokers.redis.bindings import BindingEntry
from ..brokers.redis.bindings import Bindings
from ..brokers.redis.scripts import Call
from ..brokers.redis.server import Server
from ..brokers.redis.server import check_answer
from ..brokers.redis_streams import scripts
from ..brokers.redis_streams.blocking_read import create_wait_command
from ..brokers.redis_streams.blocking_read import read_wait_answer
from ..brokers.redis_streams.broker import to_plain_url
from ..brokers.redis_streams.entries import META
from ..brokers.redis_streams.entries import encode_entry
from ..brokers.redis_streams.entries import read_entry
from ..brokers.redis_streams.entries import split_entries
from ..brokers.redis_streams.keys import OPTIONS
from ..brokers.redis_streams.keys import create_layout
from ..brokers.redis_streams.pending import PendingEntries
from ..brokers.redis_streams.pending import consumer_name
from ..errors import BrokerError
from ..errors import BrokerUnavailable
from ..errors import ConfigurationError
from ..message import Message
from ..settings import Settings
from .kombu_payload import Payload
from .kombu_payload import body_of
from .kombu_payload import delay_of
from .kombu_payload import expiration_of
from .kombu_payload import has_expired
from .kombu_payload import payload_of
from .kombu_url import url_of
from .ready_messages import ReadyMessages

#: How many messages are read at once where no prefetch says less.
_ROOM = 100
#: Seconds that one wait takes at most.
_WAIT = 1.0
_DEFAULT_LEASE = 60.0
#: After so many deliveries the queues of which nothing is ready are looked at.
_LOOK_EVERY = 10
#: Seconds that an acknowledgement may wait for the next one.
_ACKS_WAIT = 0.05
_WEEK = 7 * 86_400.0
_SENTINELS = "sentinel-streams"
_SCHEMES = (
    "redis-streams",
    "redis-streams+socket",
    "rediss-streams",
    _SENTINELS,
)

_Virtual: t.Any = virtual


class QoS(_Virtual.QoS):  # type: ignore[misc]
    """Which messages a channel holds."""

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
        if requeue:
            self.channel.source.give_back([delivery_tag], redelivered=True)
        else:
            self.channel.source.bury(delivery_tag)
        self._settled(delivery_tag)

    def restore_unacked(self) -> list[t.Any]:
        tags = list(self._delivered)
        self._delivered.clear()
        with contextlib.suppress(BrokerError):  # Their leases end.
            self.channel.source.flush()
            self.channel.source.give_back(tags)
        return []

    def room(self) -> int:
        """How many more the channel wants."""
        estimate = self.can_consume_max_estimate()
        return _ROOM if estimate is None else min(estimate, _ROOM)

    def _settled(self, tag: str) -> None:
        self._delivered.pop(tag, None)
        self.channel.source.room.set()


class Source:
    """All that one connection reads, as one consumer of each queue's group."""

    def __init__(self, url: str, options: dict[str, t.Any]) -> None:
        if "+cluster:" in url:
            raise ConfigurationError(
                "kombu reads all queues of a connection by one wait, which a Redis"
                " Cluster does not have. Consume by flask_qconsume there."
            )
        known = {name: options[name] for name in OPTIONS if name in options}
        settings = Settings.from_config(
            {
                "QCONSUME_BROKER_URL": to_plain_url(url),
                "QCONSUME_TRANSPORT_OPTIONS": known,
                "QCONSUME_LEASE": float(options.get("lease", _DEFAULT_LEASE)),
            }
        )
        self.lease = settings.lease
        self.layout = create_layout(known)
        self.server = Server(settings)
        self.bindings = Bindings(self.server, self.layout)
        #: Set when a message was settled, so that there may be room again.
        self.room = threading.Event()
        self._consumer = consumer_name()
        self._held: dict[str, PendingEntries] = {}
        self._messages: dict[str, Message] = {}
        #: By queue, what Redis is still to hear of; changed under the lock.
        self._acks: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._acked = threading.Event()
        self._due: float | None = None
        self._wire: t.Any = None
        self._over = threading.Event()
        self._beating: threading.Thread | None = None

    def read(self, rooms: dict[str, int]) -> list[tuple[Payload, str]]:
        """What is there for these queues, without waiting; and their names."""
        return list(self._unexpired(self._pop(rooms)))

    def wait(self, queues: Iterable[str], seconds: float) -> list[tuple[Payload, str]]:
        """Wait for the first entry; returns what came, at most one of each stream."""
        places = [
            (queue, number, stream)
            for queue in queues
            for number, stream in enumerate(self._of(queue).streams)
        ]
        longest = min(seconds, _WAIT if self._due is None else self._due)
        streams = [stream for _, _, stream in places]
        found = []
        wait = create_wait_command(self.layout.group, self._consumer, streams, longest)
        answer = self._wire.pipeline([wait])[0]
        for index, id, fields in read_wait_answer(answer, streams):
            queue, number, _ = places[index]
            found.append((self._payload(queue, f"{number}:{id}", fields, False), queue))
        return list(self._unexpired(found))

    def get(self, queue: str) -> Payload | None:
        """One message of a queue, if there is any."""
        while found := self._pop({queue: 1}):
            for payload, _ in self._unexpired(found):
                return payload
        return None

    def put(self, queues: Sequence[str], payload: Payload) -> None:
        """Put a message into all of these queues in one step."""
        properties = dict(payload["properties"])
        info = properties.pop("delivery_info", {})
        for name in ("delivery_tag", "body_encoding"):
            properties.pop(name, None)
        headers, delay = dict(payload.get("headers") or {}), delay_of(payload)
        expiration = expiration_of(payload)
        if expiration is not None:
            headers[own_headers.EXPIRES_AT] = time.time() + delay + expiration
        entry = encode_entry(
            {
                **properties,
                "headers": headers,
                "content_type": payload.get("content-type"),
                "content_encoding": payload.get("content-encoding"),
            },
            body_of(payload),
            exchange=info.get("exchange") or "",
            routing_key=info.get("routing_key") or "",
        )
        layout = self.layout
        steps = [
            layout.priority_step(queue, properties.get("priority")) for queue in queues
        ]
        if delay:
            keys = [layout.delayed_key(queue) for queue in queues]
            copies = [entry.pack(step) for step in steps]
            self._publish(scripts.PUBLISH(keys, delay, *copies))
        elif queues:
            keys = [
                layout.stream_key(*each) for each in zip(queues, steps, strict=True)
            ]
            fields = (layout.body, entry.body, META, entry.meta)
            self._publish(scripts.PUBLISH(keys, "", *fields))

    def ack(self, tag: str) -> None:
        """Forget a message that is done with; Redis does at the next :meth:`flush`."""
        queue, _, inner = tag.partition("\0")
        self._messages.pop(tag, None)
        with self._lock:
            self._acks.setdefault(queue, []).append(inner)
        self._acked.set()

    def flush(self) -> None:
        """Let Redis forget what was acknowledged."""
        with self._lock:
            acks, self._acks = self._acks, {}
        try:
            for queue in list(acks):
                self._of(queue).ack(acks[queue])
                del acks[queue]
        finally:
            with self._lock:  # What failed is tried again.
                for queue, tags in acks.items():
                    self._acks.setdefault(queue, []).extend(tags)

    def give_back(self, tags: Iterable[str], *, redelivered: bool = False) -> None:
        """Give messages back, to be read first.

        :param redelivered: Whether to mark them as delivered before.
        """
        for tag in tags:
            queue, _, inner = tag.partition("\0")
            self._messages.pop(tag, None)
            if redelivered:
                self._of(queue).add(inner, True)
            self._of(queue).give_back([inner])
            self._of(queue).mark_settled([inner])

    def bury(self, tag: str) -> None:
        """Make a message a dead letter."""
        queue, _, inner = tag.partition("\0")
        message = self._messages.pop(tag)
        written = own_headers.make_dead_letter_headers(
            message, "kombu", queue, "rejected", None, time.time()
        )
        entry = encode_entry(
            basic_properties.encode_copy(message, written),
            message.raw,
            exchange="",
            routing_key=queue,
        )
        step = self.layout.priority_step(queue, message.priority)
        held, place = self._of(queue), self.layout.dead_key(f"{queue}.dead")
        call = held.create_forward_call(inner, place, "keep", _WEEK, entry.pack(step))
        self.server.call(call)
        held.mark_settled([inner])

    def depth(self, queue: str) -> int:
        """How many messages nobody has."""
        keys = self.layout.stream_keys(queue)
        return int(self.server.call(scripts.COUNTS(keys, self.layout.group))[0])

    def close(self) -> None:
        """Give everything back and close what is open."""
        self._over.set()
        self._acked.set()
        with contextlib.suppress(BrokerError):  # Then they come again.
            self.flush()
        for held in self._held.values():
            with contextlib.suppress(BrokerError):
                held.return_forgotten(held.forget_all(), _WAIT)
        self._held.clear()
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if self._beating is not None:
            self._beating.join(_WAIT)
        self.server.close()

    @property
    def closed(self) -> bool:
        """Whether it is over; a new connection takes a new source."""
        return self._over.is_set()

    def _pop(self, rooms: dict[str, int]) -> list[tuple[Payload, str]]:
        self._begin()
        self._due = None
        answers = self._wire.run(
            [self._of(q).create_pop_call(room) for q, room in rooms.items()]
        )
        found = []
        for queue, answer in zip(rooms, answers, strict=True):
            if isinstance(answer, Exception):
                continue
            due, *texts = answer
            if due:
                self._due = min(float(due), self._due or float(due))
            for entry in split_entries(*texts):
                found.append((self._payload(queue, *entry), queue))
        if not found:
            # What came from other queues is delivered before an error is raised.
            for answer in answers:
                check_answer(answer)
        return found

    def _unexpired(
        self, found: Iterable[tuple[Payload, str]]
    ) -> Iterator[tuple[Payload, str]]:
        """Drop the messages that have expired."""
        for payload, queue in found:
            tag = payload["properties"]["delivery_tag"]
            if has_expired(self._messages[tag]):
                self.ack(tag)
            else:
                yield payload, queue

    def _publish(self, call: Call) -> None:
        check_answer(self.server.publish([call])[0])

    def _begin(self) -> None:
        if self._wire is None:
            self._wire = self.server.open_connection()
        if self._beating is None:
            self._beating = threading.Thread(target=self._beat, daemon=True)
            self._beating.start()

    def _beat(self) -> None:
        due = time.monotonic() + self.lease / 3
        while not self._over.is_set():
            left = due - time.monotonic()
            with contextlib.suppress(BrokerError):
                if left <= 0:
                    due += self.lease / 3
                    self._prolong()
                elif self._acked.wait(left):
                    self._acked.clear()
                    self._over.wait(_ACKS_WAIT)
                    self.flush()

    def _prolong(self) -> None:
        for held in list(self._held.values()):
            held.extend_leases()
            held.restore_expired()

    def _of(self, queue: str) -> PendingEntries:
        found = self._held.get(queue)
        if found is None:
            found = PendingEntries(self.server, self.layout, queue, self.lease)
            found.consumer = self._consumer
            self._held[queue] = found
        return found

    def _payload(
        self, queue: str, inner: str, fields: Sequence[bytes], mark: bool
    ) -> Payload:
        self._of(queue).add(inner, mark)
        tag = f"{queue}\0{inner}"
        message = read_entry(fields, queue, self.layout.body, mark)
        self._messages[tag] = message
        return payload_of(message, tag, redelivered=mark)


class Channel(_Virtual.Channel):  # type: ignore[misc]
    """Publishes, binds and consumes by the connection's :class:`Source`."""

    QoS = QoS
    #: Bodies lie in streams as they are.
    body_encoding = None
    #: kombu tells us about bindings only then.
    supports_fanout = True
    from_transport_options = ()

    @property
    def source(self) -> Source:
        return t.cast(Source, self.connection.source)

    def basic_publish(
        self, message: Payload, exchange: str, routing_key: str, **kwargs: t.Any
    ) -> None:
        self._inplace_augment_message(message, exchange, routing_key)
        self.source.put(self._lookup(exchange, routing_key), message)

    def basic_consume(self, queue: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        if queue in self.connection._callbacks:
            raise ValueError(
                f"The queue '{queue}' has a consumer on this connection already, and"
                " kombu would forget that one. Use another connection."
            )
        return super().basic_consume(queue, *args, **kwargs)

    def basic_cancel(self, consumer_tag: str) -> t.Any:
        queue = self._tag_to_queue.get(consumer_tag)
        found = super().basic_cancel(consumer_tag)
        if queue is not None:
            ready = self.connection.ready.remove(queue)
            self.source.give_back(p["properties"]["delivery_tag"] for p in ready)
        return found

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        found = self.source.bindings.read_entries(exchange)
        return [(each.routing_key, each.pattern, each.queue) for each in found]

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", *args: t.Any, **_: t.Any
    ) -> None:
        self.state.binding_delete(queue, exchange, routing_key)
        self.source.bindings.remove(
            [BindingEntry(exchange, routing_key, "", queue).binding]
        )

    def close(self) -> None:
        if not self.closed:
            super().close()

    def _lookup(
        self, exchange: str, routing_key: str, default: str | None = None
    ) -> list[str]:
        return list(self.source.bindings.queues(exchange, routing_key))

    def _queue_bind(
        self, exchange: str, routing_key: str, pattern: str | None, queue: str
    ) -> None:
        fanout = self.typeof(exchange).type == "fanout"
        key = "#" if fanout else routing_key
        member = BindingEntry(exchange, key, "#" if fanout else pattern or "", queue)
        self.source.bindings.add([member])

    def _get(self, queue: str, timeout: float | None = None) -> Payload:
        found = self.source.get(queue)
        if found is None:
            raise Empty()
        return found

    def _put(self, queue: str, message: Payload, **kwargs: t.Any) -> None:
        self.source.put([queue], message)

    def _size(self, queue: str) -> int:
        return self.source.depth(queue)

    def _purge(self, queue: str) -> int:
        count = 0
        while (found := self.source.get(queue)) is not None:
            self.source.ack(found["properties"]["delivery_tag"])
            count += 1
        self.source.flush()
        return count

    def _new_queue(self, queue: str, **kwargs: t.Any) -> None:
        # A look without any room makes the group, and so the stream.
        held = PendingEntries(self.source.server, self.source.layout, queue, 1.0)
        self.source.server.call(held.create_pop_call(0))

    def _has_queue(self, queue: str, **kwargs: t.Any) -> bool:
        key = self.source.layout.stream_key(queue)
        return bool(self.source.server.commands([("EXISTS", key)])[0])

    def _delete(self, queue: str, exchange: str, *meta: t.Any, **_: t.Any) -> None:
        layout = self.source.layout
        keys = [*layout.stream_keys(queue), layout.delayed_key(queue)]
        self.source.server.commands([("DEL", *keys)])
        for binding in [m for m in self.get_table(exchange) if m[2] == queue]:
            member = BindingEntry(exchange, *binding)
            self.source.bindings.remove([member.binding])


class Transport(_Virtual.Transport):  # type: ignore[misc]
    """kombu's side of a connection."""

    Channel = Channel
    can_parse_url = True
    driver_type = "redis"
    driver_name = "redis-streams"
    polling_interval = None
    implements = _Virtual.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset(["direct", "topic", "fanout"])
    )
    connection_errors = (*_Virtual.Transport.connection_errors, BrokerUnavailable)
    channel_errors = (*_Virtual.Transport.channel_errors, BrokerError)

    def __init__(self, client: t.Any, **kwargs: t.Any) -> None:
        super().__init__(client, **kwargs)
        self.source = self._sourced()
        self.ready = ReadyMessages()
        self._deliveries = 0

    def _sourced(self) -> Source:
        client = self.client
        # Several URLs of sentinels name one Redis.
        sentinels = len(client.alt) > 1 and client.transport_cls == _SENTINELS
        url = ";".join(client.alt) if sentinels else url_of(client)
        return Source(url, client.transport_options)

    def establish_connection(self) -> t.Any:
        if self.source.closed:
            self.source = self._sourced()
        self.source.server.commands([("PING",)])
        return super().establish_connection()

    def close_connection(self, connection: t.Any) -> None:
        self.ready.clear()
        super().close_connection(connection)
        self.source.close()

    def drain_events(self, connection: t.Any, timeout: float | None = None) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        self._look_at_others()
        while not self._delivered_one():
            left = _WAIT if until is None else until - time.monotonic()
            rooms = self._rooms()
            self.source.room.clear()
            found = self.source.read(rooms) if rooms else []
            if not found and left <= 0:
                raise TimeoutError()
            if not found and rooms:
                found = self.source.wait(rooms, left)
            elif not found:
                self.source.room.wait(min(left, _WAIT))
            self.ready.add(found)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        head, at, rest = uri.rpartition("@")
        user, colon, _ = head.rpartition(":")
        known = include_password or not at or "//" in head.rpartition(":")[2]
        return uri if known else f"{user}{colon}{mask}{at}{rest}"

    def _look_at_others(self) -> None:
        """Read queues of which nothing is ready, now and then while others are busy."""
        self._deliveries += 1
        if self._deliveries % _LOOK_EVERY or not self.ready:
            return
        rooms = self._rooms()
        others = {q: room for q, room in rooms.items() if not self.ready.count(q)}
        if others:
            self.ready.add(self.source.read(others))

    def _delivered_one(self) -> bool:
        """Hand over one message of those that were read, if its channel has room."""
        taken = self.ready.take(self._may_deliver)
        if taken is not None:
            self._deliver(*taken)
        return taken is not None

    def _may_deliver(self, queue: str) -> bool:
        channel = self._channel_of(queue)
        return channel is None or channel.qos.can_consume()

    def _rooms(self) -> dict[str, int]:
        """How many messages of each queue there is room for, where there is any.

        The queues of a channel share what its prefetch allows.
        """
        rooms = {}
        for channel in self.channels:
            queues, room = set(channel._active_queues), channel.qos.room()
            for queue in queues if room else ():
                rooms[queue] = max(1, room // len(queues)) - self.ready.count(queue)
        return {queue: room for queue, room in rooms.items() if room > 0}

    def _channel_of(self, queue: str) -> t.Any:
        return next((c for c in self.channels if queue in c._active_queues), None)


for _scheme in _SCHEMES:
    TRANSPORT_ALIASES[_scheme] = f"{__name__}:Transport"
