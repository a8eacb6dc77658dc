"""kombu's transport for Kafka: ``kombu.Connection("kafka://…")``.

It stands on our own broker and shares its topics and groups: what either of them
publishes, the other one consumes. Importing this module makes kombu use it for the
scheme, in place of its own, and makes ``kafkas://`` known. It knows nothing about
consumers of ours, and needs no Flask.

* A queue is a consumer group, a routing key a topic; ``#`` and ``*`` mean what AMQP
  says. Exchanges play no part, but a fanout exchange, and an empty routing key, is the
  topic of the exchange's name. What is published to a queue by its name, over no
  exchange, is for that group only.
* Characters that no topic's name can have are escaped: the topics of ``celery@host``
  have ``celery_x40_host`` in their names.
* A message is acknowledged alone, in any order; what was acknowledged is not repeated.
* ``reject(requeue=True)`` puts a message behind the others, to be read as redelivered;
  ``reject()`` makes it a dead letter in ``_qconsume.<queue>.dead``.
* A header ``x-delay`` holds back what is published to a queue by its name, and what
  outlives its ``expiration`` is dropped when it is read; both in ms.
* The property ``key`` is the record's key: bytes, where it is not UTF-8.
* ``lease`` among the transport options is in seconds, 60 unless given: after so long a
  silence of a process others get what it held.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import re
import threading
import time
import typing as t
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence
from queue import Empty

import confluent_kafka
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import virtual

from ..broker import headers as own_headers
from ..broker.link import Delivery
from ..broker.link import Forward
from ..broker.link import Lane
from ..broker.topology import Binding
from ..broker.topology import QueuePlan
from ..broker.topology import Topology
from ..brokers.kafka import naming
from ..brokers.kafka import records
from ..brokers.kafka.broker import Kafka
from ..brokers.kafka.client.admin import KafkaAdmin
from ..brokers.kafka.client.config import OPTIONS
from ..brokers.kafka.client.config import kafka_config
from ..brokers.kafka.link import KafkaLink
from ..errors import BrokerError
from ..errors import BrokerUnavailable
from ..message import Outgoing
from ..settings import Settings
from .kombu_payload import Payload
from .kombu_payload import body_of
from .kombu_payload import delay_of
from .kombu_payload import expiration_of
from .kombu_payload import has_expired
from .kombu_payload import payload_of
from .kombu_url import url_of

#: How many messages are held at once where no prefetch says less.
_ROOM = 100
#: Seconds that one wait takes at most; and of each of several queues.
_WAIT = 1.0
_TURN = 0.02
#: Properties of AMQP's that come as they were sent.
_KEPT = (
    *("correlation_id", "reply_to", "type", "app_id", "cluster_id", "user_id"),
    *("priority", "expiration"),
)
#: Seconds in which a broker takes a message, and in which a group gives its first.
_PUBLISH = 30.0
_JOIN = 15.0
#: Seconds in which it answers anything else.
_ANSWER = 5.0
_DEFAULT_LEASE = 60.0
#: Seconds between two looks at whether a client lives, and at new topics.
_BEAT = 10.0
_WEEK = 7 * 86_400.0
_SCHEMES = ("kafka", "kafkas")

_Virtual: t.Any = virtual


class QoS(_Virtual.QoS):  # type: ignore[misc]
    """Which messages a channel holds."""

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._delivered: OrderedDict[str, t.Any]

    def ack(self, delivery_tag: str) -> None:
        self.channel.source.ack(delivery_tag)
        self._settled(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.source.reject(delivery_tag, requeue)
        self._settled(delivery_tag)

    def restore_unacked(self) -> list[t.Any]:
        tags = list(self._delivered)
        self._delivered.clear()
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
    """What one connection publishes by, and the links that it reads."""

    def __init__(self, url: str, options: t.Mapping[str, t.Any]) -> None:
        known = {name: options[name] for name in OPTIONS if name in options}
        settings = Settings.from_config(
            {
                "QCONSUME_BROKER_URL": url,
                "QCONSUME_TRANSPORT_OPTIONS": known,
                "QCONSUME_LEASE": float(options.get("lease", _DEFAULT_LEASE)),
            }
        )
        self._admin = KafkaAdmin(kafka_config(url, known).admin())
        self.broker = Kafka(settings, Topology(settings.exchange, ()))
        #: Set when a message was settled, so that there may be room again.
        self.room = threading.Event()
        self.closed = False
        self._links: dict[str, KafkaLink] = {}
        self._held: dict[str, Delivery] = {}
        self._numbers = itertools.count()
        self._next_beats: dict[str, float] = {}
        self._turn = 0

    # -- queues -----------------------------------------------------------------------

    def declare(self, queue: str, *keys: str) -> None:
        """Let there be a queue that is bound by these keys, too, and its topics."""
        plan, exchange = self._plan(queue), self.broker.topology.exchange
        new = [Binding(queue, exchange, key) for key in keys]
        if not all(binding in plan.bindings for binding in new):
            self.leave(queue)
        self._replace(plan, {*plan.bindings, *new})
        self.broker.declare()

    def unbind(self, queue: str, key: str) -> None:
        """Subscribe a queue to one topic or pattern less."""
        plan = self._plan(queue)
        self.leave(queue)
        self._replace(plan, {b for b in plan.bindings if b.routing_key != key})

    def depth(self, queue: str) -> int:
        """How many messages of a queue nobody has; what others have counts, too."""
        held = sum(each.message.queue == queue for each in self._held.values())
        return max(0, self.broker.depth(queue) - held)

    def exists(self, queue: str) -> bool:
        """Whether a queue was declared, here or elsewhere."""
        return naming.retry(queue, 0) in self._admin.topics(_ANSWER)

    def forget(self, queue: str) -> None:
        """Delete a queue: the topics of its own, and how far its group has come."""
        self.leave(queue)
        begin = re.escape(f"{naming.PREFIX}{naming.escaped(queue)}.")
        own = re.compile(begin + r"(retry\.[0-9]+|suspects|dead)")
        found = self._admin.topics(_ANSWER)
        self._admin.delete(queue, filter(own.fullmatch, found), _ANSWER)

    def check(self) -> None:
        """Whether the broker is there.

        :raises BrokerError: if it is not; soon, so that kombu has time for another.
        """
        if not self.broker.is_reachable():
            raise BrokerUnavailable("Kafka does not answer: nothing listens there.")
        self._admin.topics(_ANSWER)

    def _plan(self, queue: str) -> QueuePlan:
        for plan in self.broker.topology.queues:
            if plan.name == queue:
                return plan
        return QueuePlan(queue, consumer=queue, type="", bindings=())

    def _replace(self, plan: QueuePlan, bindings: t.AbstractSet[Binding]) -> None:
        topology = self.broker.topology
        others = [each for each in topology.queues if each.name != plan.name]
        new = dataclasses.replace(plan, bindings=tuple(sorted(bindings)))
        self.broker.topology = Topology(topology.exchange, (*others, new))

    # -- messages, out ----------------------------------------------------------------

    def put(
        self,
        payload: Payload,
        topic: str,
        exchange: str,
        routing_key: str,
        mandatory: bool,
    ) -> None:
        """Publish to a topic, or to a queue if there is none; return when confirmed."""
        properties = payload["properties"]
        headers = dict(payload.get("headers") or {})
        headers[own_headers.EXCHANGE] = exchange
        headers[own_headers.ROUTING_KEY] = routing_key
        sent_at = _timestamp(properties.get("timestamp"))
        if sent_at is not None:
            headers[own_headers.PUBLISHED_AT] = sent_at
        error = self.broker.publish(
            [
                Outgoing(
                    routing_key=topic or routing_key,
                    body=body_of(payload),
                    exchange=self.broker.topology.exchange if topic else "",
                    id=properties.get("message_id"),
                    headers=headers,
                    content_type=payload.get("content-type"),
                    content_encoding=payload.get("content-encoding"),
                    properties={k: properties[k] for k in _KEPT if properties.get(k)},
                    timestamp=time.time(),
                    delay=delay_of(payload),
                    expires=expiration_of(payload),
                    key=properties.get("key"),
                    mandatory=mandatory,
                )
            ],
            _PUBLISH,
        )[0]
        if error is not None:
            raise error

    # -- messages, in -----------------------------------------------------------------

    def join(self, queues: Sequence[str]) -> None:
        """Be a member of the groups of these queues."""
        for queue in queues:
            self._link(queue)

    def next(self, queues: Sequence[str], seconds: float) -> tuple[Payload, str] | None:
        """One message of any of these queues, within so many seconds."""
        self._turn += 1
        first = self._turn % len(queues)
        turns = [*queues[first:], *queues[:first]]
        # The time goes to one of them, so that no message of the others waits long.
        waits = [0.0] * (len(turns) - 1) + [min(seconds, _WAIT if not first else _TURN)]
        for queue, wait in zip(turns, waits, strict=True):
            for delivery in self._link(queue).read(1, wait):
                if not has_expired(delivery.message):
                    return self._taken(delivery), queue
                delivery.link.ack([delivery])
        return None

    def get(self, queue: str) -> Payload | None:
        """One message of a queue, if there is any."""
        until = time.monotonic() + _JOIN
        while time.monotonic() < until and self.depth(queue):
            if found := self.next([queue], _TURN):
                return found[0]
        return None

    def ack(self, tag: str) -> None:
        """Forget a message that is done with."""
        delivery = self._held.pop(tag)
        if not delivery.stale:
            delivery.link.ack([delivery])

    def reject(self, tag: str, requeue: bool) -> None:
        """Put a message behind the others, or make it a dead letter."""
        delivery = self._held[tag]
        message = delivery.message
        if requeue:
            headers = own_headers.make_retry_headers(message, message.attempt + 1)
            forward = Forward(delivery, Lane.MAIN, headers)
        else:
            now = time.time()
            headers = own_headers.make_dead_letter_headers(
                message, "kombu", message.queue, "rejected", None, now
            )
            forward = Forward(delivery, Lane.DEAD, headers, expires=_WEEK)
        if not delivery.stale and (error := delivery.link.forward([forward])[0]):
            raise error
        del self._held[tag]

    def give_back(self, tags: Iterable[str]) -> None:
        """Let others have these, unmarked."""
        deliveries = [self._held.pop(tag) for tag in tags if tag in self._held]
        for queue in {delivery.message.queue for delivery in deliveries}:
            self.leave(queue, [d for d in deliveries if d.message.queue == queue])

    def leave(self, queue: str, unstarted: Sequence[Delivery] = ()) -> None:
        """Leave a queue's group; what is held of it becomes stale."""
        link = self._links.pop(queue, None)
        if link is not None:
            with contextlib.suppress(BrokerError):
                link.pause()
                link.release([d for d in unstarted if not d.stale])
            link.close()

    def holds(self, queue: str) -> bool:
        """Whether some of a queue's messages are not settled yet."""
        return any(each.message.queue == queue for each in self._held.values())

    def close(self) -> None:
        """Give everything back and close what is open."""
        self.closed = True
        self.give_back(list(self._held))
        for queue in list(self._links):
            self.leave(queue)
        self.broker.close()
        self._admin.close()

    def _link(self, queue: str) -> KafkaLink:
        link = self._links.get(queue)
        if link is None or link.closed:
            found = self.broker.connect(self._plan(queue), Lane.MAIN, _ROOM)
            link = self._links[queue] = t.cast(KafkaLink, found)
            self._next_beats[queue] = time.monotonic() + _BEAT
            link.await_joined(_ANSWER)
        elif time.monotonic() >= self._next_beats[queue]:
            self._next_beats[queue] = time.monotonic() + _BEAT
            link.keep_alive()
        return link

    def _taken(self, delivery: Delivery) -> Payload:
        message = delivery.message
        tag = f"{message.queue}/{next(self._numbers)}"
        self._held[tag] = delivery
        again = message.redelivered or message.attempt > 1
        payload = payload_of(message, tag, again)
        properties = payload["properties"]
        properties["key"] = properties.pop(records.RAW_KEY, message.key)
        topic = properties.pop("topic")
        if message.routing_key == topic:
            properties["delivery_info"]["routing_key"] = naming.unescaped(topic)
        return payload


class Channel(_Virtual.Channel):  # type: ignore[misc]
    """Publishes, binds and consumes by the connection's :class:`Source`."""

    QoS = QoS
    #: Bodies lie in records as they are.
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
        topic = self._topic(exchange, routing_key) if exchange else ""
        mandatory = bool(kwargs.get("mandatory"))
        self.source.put(message, topic, exchange, routing_key, mandatory)

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
        # Else its partitions would be nobody's until the connection ends.
        if queue is not None and not self.source.holds(queue):
            self.source.leave(queue)
        return found

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", *args: t.Any, **_: t.Any
    ) -> None:
        self.state.binding_delete(queue, exchange, routing_key)
        self.source.unbind(queue, self._topic(exchange, routing_key))

    def close(self) -> None:
        if not self.closed:
            super().close()

    def _topic(self, exchange: str, routing_key: str) -> str:
        """The topic of a routing key; that of the exchange, where there is none."""
        fanout = self.typeof(exchange).type == "fanout"
        return naming.escaped_key((not fanout and routing_key) or exchange)

    def _queue_bind(
        self, exchange: str, routing_key: str, pattern: str | None, queue: str
    ) -> None:
        self.source.declare(queue, self._topic(exchange, routing_key))

    def _get(self, queue: str, timeout: float | None = None) -> Payload:
        found = self.source.get(queue)
        if found is None:
            raise Empty()
        return found

    def _put(self, queue: str, message: Payload, **kwargs: t.Any) -> None:
        self.source.put(message, "", "", queue, mandatory=True)

    def _size(self, queue: str) -> int:
        return self.source.depth(queue)

    def _purge(self, queue: str) -> int:
        count = 0
        while (found := self.source.get(queue)) is not None:
            self.source.ack(found["properties"]["delivery_tag"])
            count += 1
        return count

    def _new_queue(self, queue: str, **kwargs: t.Any) -> None:
        self.source.declare(queue)

    def _has_queue(self, queue: str, **kwargs: t.Any) -> bool:
        return self.source.exists(queue)

    def _delete(self, queue: str, exchange: str, *meta: t.Any, **_: t.Any) -> None:
        self.source.forget(queue)


class Transport(_Virtual.Transport):  # type: ignore[misc]
    """kombu's side of a connection."""

    Channel = Channel
    can_parse_url = True
    driver_type = "kafka"
    driver_name = "confluent-kafka"
    polling_interval = None
    implements = _Virtual.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset(["direct", "topic", "fanout"])
    )
    connection_errors = (*_Virtual.Transport.connection_errors, BrokerUnavailable)
    channel_errors = (*_Virtual.Transport.channel_errors, BrokerError)

    def __init__(self, client: t.Any, **kwargs: t.Any) -> None:
        super().__init__(client, **kwargs)
        self.source = self._sourced()

    def _sourced(self) -> Source:
        return Source(url_of(self.client), self.client.transport_options)

    def establish_connection(self) -> t.Any:
        if self.source.closed:
            self.source = self._sourced()
        self.source.check()
        return super().establish_connection()

    def close_connection(self, connection: t.Any) -> None:
        super().close_connection(connection)
        self.source.close()

    def drain_events(self, connection: t.Any, timeout: float | None = None) -> None:
        # Joining a group takes none of the time that is for messages.
        self.source.join(self._wanted()[0])
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self.source.room.clear()
            left = _WAIT if until is None else max(0.0, until - time.monotonic())
            queues, full = self._wanted()
            if queues:
                found = self.source.next(queues, min(left, _TURN) if full else left)
                if found is not None:
                    self._deliver(*found)
                    return
            else:
                self.source.room.wait(min(left, _WAIT))
            if left <= 0:
                raise TimeoutError()

    def driver_version(self) -> str:
        return str(confluent_kafka.version()[0])

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        head, at, rest = uri.rpartition("@")
        user, colon, _ = head.rpartition(":")
        known = include_password or not at or "//" in head.rpartition(":")[2]
        return uri if known else f"{user}{colon}{mask}{at}{rest}"

    def _wanted(self) -> tuple[list[str], bool]:
        """The queues whose channels have room, and whether others have none."""
        having, full = [], False
        for channel in self.channels:
            if channel.qos.can_consume():
                having += channel._active_queues
            else:
                full = full or bool(channel._active_queues)
        return having, full


def _timestamp(value: t.Any) -> float | None:
    """Seconds since 1970; kombu takes a time, too."""
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and value > 0 else None


for _scheme in _SCHEMES:
    TRANSPORT_ALIASES[_scheme] = f"{__name__}:Transport"
