"""kombu's transport for Redis Streams: ``kombu.Connection("redis-streams://…")``.

It uses the scripts of our own broker, and so the same streams: messages published by
one are consumed by the other. Importing this module makes the scheme known to kombu. It
does not know our consumers, and does not need Flask.

* Messages are held by a lease, which a thread renews as long as the process lives.
* Acknowledgements are sent to Redis together: at once if no message is ready to be
  delivered, else within 0.05 s. If the process is killed in that time, those messages
  come again.
* Bindings are kept in Redis; a fanout exchange is a topic exchange bound with ``#``, so
  it is durable. ``#`` and ``*`` mean what AMQP says.
* ``reject(requeue=True)`` puts a message back to the front, to be read as redelivered;
  ``reject()`` makes it a dead letter in ``{<queue>}.dead``.
* A header ``x-delay`` delays a message. A message that is older than its ``expiration``
  is dropped when it is read. Both are in ms.
* The transport option ``lease`` is in seconds, by default 60.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from kombu.transport import TRANSPORT_ALIASES

from ..background_thread import BackgroundThread
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
from ..brokers.redis_streams.keys import StreamLayout
from ..brokers.redis_streams.keys import create_layout
from ..brokers.redis_streams.pending import PendingEntries
from ..brokers.redis_streams.pending import create_consumer_name
from ..errors import BrokerError
from ..errors import ConfigurationError
from ..message import Message
from . import base
from . import kombu_payload
from .kombu_payload import Payload

#: Seconds for which an acknowledgement waits for further ones.
_ACK_DELAY_SECONDS = 0.05
#: Stands between the queue and the id of an entry in a delivery tag.
_SEPARATOR = "\0"
_SENTINELS = "sentinel-streams"
_SCHEMES = (
    "redis-streams",
    "redis-streams+socket",
    "rediss-streams",
    _SENTINELS,
)


class StreamSource(base.Source):
    """Redis Streams as the source of a kombu connection.

    The worker waits for each queue separately, by a :class:`~.broker.link.Link`. Here
    one blocking ``XREADGROUP`` waits for all queues of the connection, so this class
    calls the same scripts in Redis without links.
    """

    def __init__(self, url: str, options: Mapping[str, t.Any]) -> None:
        if "+cluster:" in url:
            raise ConfigurationError(
                "kombu reads all queues of a connection by one wait, which a Redis"
                " Cluster does not have. Consume by flask_qconsume there."
            )
        super().__init__()
        settings = base.read_settings(to_plain_url(url), options, OPTIONS)
        self.layout = create_layout(settings.transport_options)
        self.server = Server(settings)
        self.bindings = Bindings(self.server, self.layout)
        self._held_entries = _HeldEntries(self.server, self.layout, settings.lease)
        #: Messages that are not settled, by their delivery tags.
        self._messages: dict[str, Message] = {}
        #: Seconds until the next delayed message is due, as of the last read.
        self._due: float | None = None
        self._redis_connection: t.Any = None

    def check(self) -> None:
        self.server.send_commands([("PING",)])

    def declare(self, queue: str) -> None:
        # Reading zero messages creates the group, and so the stream.
        pending = PendingEntries(
            self.server, self.layout, queue, self._held_entries.lease
        )
        self.server.call(pending.create_pop_call(0))

    def exists(self, queue: str) -> bool:
        key = self.layout.stream_key(queue)
        return bool(self.server.send_commands([("EXISTS", key)])[0])

    def delete(self, queue: str, exchange: str) -> None:
        keys = [*self.layout.stream_keys(queue), self.layout.delayed_key(queue)]
        self.server.send_commands([("DEL", *keys)])
        members = self.bindings.read_entries(exchange)
        self.bindings.remove(m.binding for m in members if m.queue == queue)

    def depth(self, queue: str) -> int:
        keys = self.layout.stream_keys(queue)
        return int(self.server.call(scripts.COUNT_ENTRIES(keys, self.layout.group)))

    def put(self, queue: str, payload: Payload) -> None:
        self.publish([queue], payload)

    def publish(self, queues: Sequence[str], payload: Payload) -> None:
        """Add a message to several queues in one step."""
        properties = dict(payload["properties"])
        info = properties.pop("delivery_info", {})
        for name in ("delivery_tag", "body_encoding"):
            properties.pop(name, None)
        headers, delay = (
            dict(payload.get("headers") or {}),
            kombu_payload.read_delay(payload),
        )
        expiration = kombu_payload.read_expiration(payload)
        if expiration is not None:
            headers[own_headers.EXPIRES_AT] = time.time() + delay + expiration
        entry = encode_entry(
            {
                **properties,
                "headers": headers,
                "content_type": payload.get("content-type"),
                "content_encoding": payload.get("content-encoding"),
            },
            kombu_payload.read_body(payload),
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
                layout.stream_key(*queue_and_step)
                for queue_and_step in zip(queues, steps, strict=True)
            ]
            fields = (layout.body, entry.body, META, entry.meta)
            self._publish(scripts.PUBLISH(keys, "", *fields))

    def _publish(self, call: Call) -> None:
        check_answer(self.server.publish([call])[0])

    def read(self, rooms: Mapping[str, int], seconds: float) -> Sequence[base.Read]:
        payloads = list(self._drop_expired(self._pop(rooms)))
        if payloads or seconds <= 0:
            return payloads
        return list(self._drop_expired(self._wait(rooms, seconds)))

    def get(self, queue: str) -> Payload | None:
        while payloads := self._pop({queue: 1}):
            for payload, _ in self._drop_expired(payloads):
                return payload
        return None

    def _pop(self, rooms: Mapping[str, int]) -> list[base.Read]:
        """Take messages that are ready in any queue, without waiting."""
        self._start()
        self._due = None
        calls = [
            self._held_entries.of(queue).create_pop_call(room)
            for queue, room in rooms.items()
        ]
        answers = self._redis_connection.run(calls)
        payloads = []
        for queue, answer in zip(rooms, answers, strict=True):
            if isinstance(answer, Exception):
                continue
            due, *texts = answer
            if due:
                self._due = min(float(due), self._due or float(due))
            for entry in split_entries(*texts):
                payloads.append((self._hold(queue, *entry), queue))
        if not payloads:
            # The messages of other queues are delivered before an error is raised.
            for answer in answers:
                check_answer(answer)
        return payloads

    def _wait(self, queues: Iterable[str], seconds: float) -> Iterator[base.Read]:
        """Wait for new entries; yield at most one entry of each stream."""
        places = [
            (queue, number, stream)
            for queue in queues
            for number, stream in enumerate(self._held_entries.of(queue).streams)
        ]
        streams = [stream for _, _, stream in places]
        if self._due is not None:
            seconds = min(seconds, self._due)
        wait = create_wait_command(
            self.layout.group, self._held_entries.consumer, streams, seconds
        )
        answer = self._redis_connection.pipeline([wait])[0]
        for index, id, fields in read_wait_answer(answer, streams):
            queue, number, _ = places[index]
            yield self._hold(queue, f"{number}:{id}", fields, False), queue

    def _drop_expired(
        self, payloads: Iterable[tuple[Payload, str]]
    ) -> Iterator[base.Read]:
        for payload, queue in payloads:
            tag = payload["properties"]["delivery_tag"]
            if kombu_payload.has_expired(self._messages[tag]):
                self.ack(tag)
            else:
                yield payload, queue

    def _hold(
        self, queue: str, inner: str, fields: Sequence[bytes], redelivered: bool
    ) -> Payload:
        self._held_entries.of(queue).add(inner, redelivered)
        tag = f"{queue}{_SEPARATOR}{inner}"
        message = read_entry(fields, queue, self.layout.body, redelivered)
        self._messages[tag] = message
        return kombu_payload.create_payload(message, tag, redelivered)

    def ack(self, tag: str) -> None:
        queue, inner = self._forget(tag)
        self._held_entries.ack(queue, inner)

    def flush(self) -> None:
        self._held_entries.flush()

    def reject(self, tag: str, requeue: bool) -> None:
        if requeue:
            self._give_back(tag, redelivered=True)
        else:
            self._make_dead_letter(tag)

    def give_back(self, tags: Iterable[str]) -> None:
        for tag in tags:
            self._give_back(tag)

    def _forget(self, tag: str) -> tuple[str, str]:
        """Forget a message; return its queue and its entry's tag."""
        self._messages.pop(tag, None)
        queue, _, inner = tag.partition(_SEPARATOR)
        return queue, inner

    def _give_back(self, tag: str, redelivered: bool = False) -> None:
        queue, inner = self._forget(tag)
        pending = self._held_entries.of(queue)
        if redelivered:
            pending.add(inner, True)
        pending.give_back([inner])
        pending.mark_settled([inner])

    def _make_dead_letter(self, tag: str) -> None:
        message = self._messages[tag]
        queue, inner = self._forget(tag)
        headers = kombu_payload.create_rejected_headers(message, queue)
        properties = basic_properties.encode_copy(message, headers)
        entry = encode_entry(properties, message.raw, exchange="", routing_key=queue)
        packed = entry.pack(self.layout.priority_step(queue, message.priority))
        pending, target_key = (
            self._held_entries.of(queue),
            self.layout.dead_key(f"{queue}.dead"),
        )
        keep = base.DEAD_LETTER_SECONDS
        self.server.call(
            pending.create_forward_call(inner, target_key, "keep", keep, packed)
        )
        pending.mark_settled([inner])

    def _start(self) -> None:
        if self._redis_connection is None:
            self._redis_connection = self.server.open_connection()
        self._held_entries.start()

    def close(self) -> None:
        self.closed = True
        self._held_entries.close()
        if self._redis_connection is not None:
            self._redis_connection.close()
            self._redis_connection = None
        self.server.close()


class _HeldEntries:
    """The entries that a kombu connection has read and not acknowledged.

    A thread renews their leases, and sends the acknowledgements that were collected.
    """

    def __init__(self, server: Server, layout: StreamLayout, lease: float) -> None:
        #: The name of the consumer in the groups of all queues.
        self.consumer = create_consumer_name()
        self._server = server
        self._layout = layout
        self.lease = lease
        self._by_queue: dict[str, PendingEntries] = {}
        #: By queue, acknowledgements that are not sent yet; guarded by the lock.
        self._acks: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._acked = threading.Event()
        self._ended = threading.Event()
        self._thread: BackgroundThread | None = None

    def of(self, queue: str) -> PendingEntries:
        """Return the held entries of one queue."""
        pending_entries = self._by_queue.get(queue)
        if pending_entries is None:
            pending_entries = PendingEntries(
                self._server, self._layout, queue, self.lease
            )
            pending_entries.consumer = self.consumer
            self._by_queue[queue] = pending_entries
        return pending_entries

    def ack(self, queue: str, tag: str) -> None:
        """Mark an entry to be acknowledged at the next :meth:`flush`."""
        with self._lock:
            self._acks.setdefault(queue, []).append(tag)
        self._acked.set()

    def flush(self) -> None:
        """Acknowledge all entries that are marked for it."""
        with self._lock:
            acks, self._acks = self._acks, {}
        try:
            for queue in list(acks):
                self.of(queue).ack(acks[queue])
                del acks[queue]
        finally:
            with self._lock:  # Failed ones are sent again.
                for queue, tags in acks.items():
                    self._acks.setdefault(queue, []).extend(tags)

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self._thread = BackgroundThread(self._keep_alive)
            self._thread.start()

    def close(self) -> None:
        """Send the acknowledgements, give back all entries, and end the thread."""
        self._ended.set()
        self._acked.set()
        with contextlib.suppress(BrokerError):  # The messages come again.
            self.flush()
        for pending in self._by_queue.values():
            with contextlib.suppress(BrokerError):
                pending.return_forgotten(pending.forget_all(), base.MAX_WAIT_SECONDS)
        self._by_queue.clear()
        if self._thread is not None:
            self._thread.join(base.MAX_WAIT_SECONDS)

    def _keep_alive(self) -> None:
        due = time.monotonic() + self.lease / 3
        while not self._ended.is_set():
            seconds_left = due - time.monotonic()
            with contextlib.suppress(BrokerError):
                if seconds_left <= 0:
                    due += self.lease / 3
                    self._renew_leases()
                elif self._acked.wait(seconds_left):
                    self._acked.clear()
                    self._ended.wait(_ACK_DELAY_SECONDS)
                    self.flush()

    def _renew_leases(self) -> None:
        for pending in list(self._by_queue.values()):
            pending.extend_leases()
            pending.restore_expired()


class Channel(base.Channel):
    """A kombu channel that routes messages by the bindings in Redis."""

    def basic_publish(
        self, message: Payload, exchange: str, routing_key: str, **kwargs: t.Any
    ) -> None:
        self._inplace_augment_message(message, exchange, routing_key)
        self.source.publish(self._lookup(exchange, routing_key), message)

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        binding_entries = self.source.bindings.read_entries(exchange)
        return [
            (binding_entry.routing_key, binding_entry.pattern, binding_entry.queue)
            for binding_entry in binding_entries
        ]

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", *args: t.Any, **_: t.Any
    ) -> None:
        self.state.binding_delete(queue, exchange, routing_key)
        self.source.bindings.remove(
            [BindingEntry(exchange, routing_key, "", queue).binding]
        )

    def _lookup(
        self, exchange: str, routing_key: str, default: str | None = None
    ) -> list[str]:
        return list(self.source.bindings.find_queues(exchange, routing_key))

    def _queue_bind(
        self, exchange: str, routing_key: str, pattern: str | None, queue: str
    ) -> None:
        is_fanout = self.typeof(exchange).type == "fanout"
        key, pattern = ("#", "#") if is_fanout else (routing_key, pattern or "")
        self.source.bindings.add([BindingEntry(exchange, key, pattern, queue)])


class Transport(base.Transport):
    """A kombu connection to Redis Streams."""

    Channel = Channel
    driver_type = "redis"
    driver_name = "redis-streams"

    def _create_source(self, url: str) -> StreamSource:
        return StreamSource(url, self.client.transport_options)

    def _url(self) -> str:
        client = self.client
        # The URLs of several sentinels name one Redis.
        if len(client.alt) > 1 and client.transport_cls == _SENTINELS:
            return ";".join(client.alt)
        return super()._url()


for _scheme in _SCHEMES:
    TRANSPORT_ALIASES[_scheme] = f"{__name__}:Transport"
