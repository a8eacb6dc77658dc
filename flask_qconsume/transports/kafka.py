"""kombu's transport for Kafka: ``kombu.Connection("kafka://…")``.

It uses our own Kafka broker, and so the same topics and groups: messages published by
one are consumed by the other. Importing this module makes kombu use it for the scheme
``kafka://``, in place of its own transport, and adds the scheme ``kafkas://``. It does
not know our consumers, and does not need Flask.

* A queue is a consumer group, a routing key a topic; ``#`` and ``*`` mean what AMQP
  says. Exchanges have no effect, with one exception: a fanout exchange, or an empty
  routing key, means the topic of the exchange's name. A message published to a queue by
  its name, with the default exchange, is for that group only.
* Characters that a topic's name cannot have are escaped: the topics of ``celery@host``
  have ``celery_x40_host`` in their names.
* Each message is acknowledged on its own, in any order; acknowledged messages do not
  come again.
* ``reject(requeue=True)`` puts a message behind all others, to be read as redelivered;
  ``reject()`` makes it a dead letter in ``_qconsume.<queue>.dead``.
* A header ``x-delay`` delays a message published to a queue by its name. A message that
  is older than its ``expiration`` is dropped when it is read. Both are in ms.
* The property ``key`` is the record's key: as bytes, if it is not UTF-8.
* The transport option ``lease`` is in seconds, by default 60: after that time without a
  sign of life, other processes get the messages that a process held.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import re
import time
import typing as t
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import confluent_kafka
from kombu.transport import TRANSPORT_ALIASES

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
from ..brokers.kafka.client.config import create_kafka_config
from ..brokers.kafka.link import KafkaLink
from ..errors import BrokerError
from ..errors import BrokerUnavailable
from ..message import Outgoing
from . import base
from . import kombu_payload
from .kombu_payload import Payload

#: Records that a link fetches ahead.
_PREFETCH = 100
#: Seconds of a wait for one queue while other queues are read as well.
_SHORT_WAIT_SECONDS = 0.02
#: Properties of AMQP that a record carries as they are.
_KEPT_PROPERTIES = (
    *("correlation_id", "reply_to", "type", "app_id", "cluster_id", "user_id"),
    *("priority", "expiration"),
)
_PUBLISH_TIMEOUT_SECONDS = 30.0
#: Seconds that ``get`` waits for the first message of a group that it has just joined.
_FIRST_MESSAGE_TIMEOUT_SECONDS = 15.0
#: Seconds in which Kafka answers any other request.
_ANSWER_TIMEOUT_SECONDS = 5.0
_KEEP_ALIVE_INTERVAL_SECONDS = 10.0


class KafkaSource(base.Source):
    """Kafka as the source of a kombu connection, with a link for each queue."""

    def __init__(self, url: str, options: Mapping[str, t.Any]) -> None:
        super().__init__()
        settings = base.read_settings(url, options, OPTIONS)
        self._admin = KafkaAdmin(
            create_kafka_config(url, settings.transport_options).admin()
        )
        self.broker = Kafka(settings, Topology(settings.exchange, ()))
        self._links: dict[str, KafkaLink] = {}
        #: Deliveries that are not settled, by their tags for kombu.
        self._held_deliveries: dict[str, Delivery] = {}
        self._tag_numbers = itertools.count()
        self._next_keep_alive: dict[str, float] = {}
        self._turn = 0

    def check(self) -> None:
        if not self.broker.is_reachable():
            raise BrokerUnavailable("Kafka does not answer: nothing listens there.")
        self._admin.list_topics(_ANSWER_TIMEOUT_SECONDS)

    def declare(self, queue: str, *topics: str) -> None:
        """Create the topics of a queue, and subscribe the queue to topics."""
        plan, exchange = self._plan(queue), self.broker.topology.exchange
        new = [Binding(queue, exchange, topic) for topic in topics]
        if not all(binding in plan.bindings for binding in new):
            self._leave(queue)
        self._replace(plan, {*plan.bindings, *new})
        self.broker.declare()

    def unbind(self, queue: str, topic: str) -> None:
        """Remove a topic, or a pattern of topics, from a queue's subscription."""
        plan = self._plan(queue)
        self._leave(queue)
        self._replace(plan, {b for b in plan.bindings if b.routing_key != topic})

    def depth(self, queue: str) -> int:
        # Kafka counts the messages of other processes as long as they are not settled.
        held_count = sum(
            delivery.message.queue == queue
            for delivery in self._held_deliveries.values()
        )
        return max(0, self.broker.depth(queue) - held_count)

    def exists(self, queue: str) -> bool:
        return naming.retry_topic(queue, 0) in self._admin.list_topics(
            _ANSWER_TIMEOUT_SECONDS
        )

    def delete(self, queue: str, exchange: str) -> None:
        """Delete a queue: its own topics, and its consumer group."""
        self._leave(queue)
        begin = re.escape(f"{naming.PREFIX}{naming.escape(queue)}.")
        own_topic = re.compile(begin + r"(retry\.[0-9]+|suspects|dead)")
        topics = self._admin.list_topics(_ANSWER_TIMEOUT_SECONDS)
        self._admin.delete(
            queue, filter(own_topic.fullmatch, topics), _ANSWER_TIMEOUT_SECONDS
        )

    def _plan(self, queue: str) -> QueuePlan:
        for plan in self.broker.topology.queues:
            if plan.name == queue:
                return plan
        return QueuePlan(queue, consumer=queue, type="", bindings=())

    def _replace(self, plan: QueuePlan, bindings: t.AbstractSet[Binding]) -> None:
        topology = self.broker.topology
        others = [
            plan_of_queue
            for plan_of_queue in topology.queues
            if plan_of_queue.name != plan.name
        ]
        new = dataclasses.replace(plan, bindings=tuple(sorted(bindings)))
        self.broker.topology = Topology(topology.exchange, (*others, new))

    def put(self, queue: str, payload: Payload) -> None:
        self.publish(payload, "", "", queue, mandatory=True)

    def publish(
        self,
        payload: Payload,
        topic: str,
        exchange: str,
        routing_key: str,
        mandatory: bool,
    ) -> None:
        """Publish to a topic, or to a queue; wait for the confirmation."""
        properties = payload["properties"]
        headers = dict(payload.get("headers") or {})
        headers[own_headers.EXCHANGE] = exchange
        headers[own_headers.ROUTING_KEY] = routing_key
        sent_at = _read_timestamp(properties.get("timestamp"))
        if sent_at is not None:
            headers[own_headers.PUBLISHED_AT] = sent_at
        message = Outgoing(
            routing_key=topic or routing_key,
            body=kombu_payload.read_body(payload),
            exchange=self.broker.topology.exchange if topic else "",
            id=properties.get("message_id"),
            headers=headers,
            content_type=payload.get("content-type"),
            content_encoding=payload.get("content-encoding"),
            properties={
                name: properties[name]
                for name in _KEPT_PROPERTIES
                if properties.get(name)
            },
            timestamp=time.time(),
            delay=kombu_payload.read_delay(payload),
            expires=kombu_payload.read_expiration(payload),
            key=properties.get("key"),
            mandatory=mandatory,
        )
        if error := self.broker.publish([message], _PUBLISH_TIMEOUT_SECONDS)[0]:
            raise error

    def read(self, rooms: Mapping[str, int], seconds: float) -> Sequence[base.Read]:
        """Read at most one message, from the queues in turn.

        Only the last read of a call waits: for ``seconds`` if the call began with the
        first queue of ``rooms``, else for a short time.
        """
        queues = [*rooms]
        self._turn += 1
        first = self._turn % len(queues)
        last = min(seconds, _SHORT_WAIT_SECONDS) if first else seconds
        waits = [0.0] * (len(queues) - 1) + [last]
        for queue, wait in zip(queues[first:] + queues[:first], waits, strict=True):
            for delivery in self._link(queue).read(1, wait):
                if not kombu_payload.has_expired(delivery.message):
                    return [(self._hold(delivery), queue)]
                delivery.link.ack([delivery])
        return ()

    def get(self, queue: str) -> Payload | None:
        until = time.monotonic() + _FIRST_MESSAGE_TIMEOUT_SECONDS
        while time.monotonic() < until and self.depth(queue):
            for payload, _ in self.read({queue: 1}, _SHORT_WAIT_SECONDS):
                return payload
        return None

    def _link(self, queue: str) -> KafkaLink:
        link = self._links.get(queue)
        if link is None or link.closed:
            new_link = self.broker.connect(self._plan(queue), Lane.MAIN, _PREFETCH)
            link = self._links[queue] = t.cast(KafkaLink, new_link)
            self._postpone_keep_alive(queue)
            link.await_joined(_ANSWER_TIMEOUT_SECONDS)
        elif time.monotonic() >= self._next_keep_alive[queue]:
            self._postpone_keep_alive(queue)
            link.keep_alive()
        return link

    def _postpone_keep_alive(self, queue: str) -> None:
        self._next_keep_alive[queue] = time.monotonic() + _KEEP_ALIVE_INTERVAL_SECONDS

    def _hold(self, delivery: Delivery) -> Payload:
        message = delivery.message
        tag = f"{message.queue}/{next(self._tag_numbers)}"
        self._held_deliveries[tag] = delivery
        redelivered = message.redelivered or message.attempt > 1
        payload = kombu_payload.create_payload(message, tag, redelivered)
        properties = payload["properties"]
        properties["key"] = properties.pop(records.RAW_KEY, message.key)
        topic = properties.pop("topic")
        if message.routing_key == topic:
            properties["delivery_info"]["routing_key"] = naming.unescape(topic)
        return payload

    def ack(self, tag: str) -> None:
        delivery = self._held_deliveries.pop(tag)
        if not delivery.stale:
            delivery.link.ack([delivery])

    def reject(self, tag: str, requeue: bool) -> None:
        delivery = self._held_deliveries[tag]
        message = delivery.message
        if requeue:
            headers = own_headers.make_retry_headers(message, message.attempt + 1)
            forward = Forward(delivery, Lane.MAIN, headers)
        else:
            headers = kombu_payload.create_rejected_headers(message, message.queue)
            keep = base.DEAD_LETTER_SECONDS
            forward = Forward(delivery, Lane.DEAD, headers, expires=keep)
        if not delivery.stale and (error := delivery.link.forward([forward])[0]):
            raise error
        del self._held_deliveries[tag]

    def give_back(self, tags: Iterable[str]) -> None:
        """Give messages back by leaving their consumer groups."""
        deliveries = [
            self._held_deliveries.pop(tag)
            for tag in tags
            if tag in self._held_deliveries
        ]
        for queue in {delivery.message.queue for delivery in deliveries}:
            self._leave(queue, [d for d in deliveries if d.message.queue == queue])

    def cancel(self, queue: str) -> None:
        # A member that reads no more would keep its partitions from other members. It
        # stays for as long as it has messages to settle.
        if not any(
            delivery.message.queue == queue
            for delivery in self._held_deliveries.values()
        ):
            self._leave(queue)

    def close(self) -> None:
        self.closed = True
        self.give_back(list(self._held_deliveries))
        for queue in list(self._links):
            self._leave(queue)
        self.broker.close()
        self._admin.close()

    def _leave(self, queue: str, unstarted: Sequence[Delivery] = ()) -> None:
        """Leave a queue's consumer group; its unsettled deliveries become stale."""
        link = self._links.pop(queue, None)
        if link is not None:
            with contextlib.suppress(BrokerError):
                link.pause()
                link.release([d for d in unstarted if not d.stale])
            link.close()


class Channel(base.Channel):
    """A kombu channel that publishes to topics, and subscribes queues to topics."""

    def basic_publish(
        self, message: Payload, exchange: str, routing_key: str, **kwargs: t.Any
    ) -> None:
        self._inplace_augment_message(message, exchange, routing_key)
        topic = self._topic(exchange, routing_key) if exchange else ""
        mandatory = bool(kwargs.get("mandatory"))
        self.source.publish(message, topic, exchange, routing_key, mandatory)

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", *args: t.Any, **_: t.Any
    ) -> None:
        self.state.binding_delete(queue, exchange, routing_key)
        self.source.unbind(queue, self._topic(exchange, routing_key))

    def _queue_bind(
        self, exchange: str, routing_key: str, pattern: str | None, queue: str
    ) -> None:
        self.source.declare(queue, self._topic(exchange, routing_key))

    def _topic(self, exchange: str, routing_key: str) -> str:
        """Return the topic for a routing key; for a fanout exchange, its name."""
        is_fanout = self.typeof(exchange).type == "fanout"
        return naming.escape_routing_key((not is_fanout and routing_key) or exchange)


class Transport(base.Transport):
    """A kombu connection to Kafka."""

    Channel = Channel
    driver_type = "kafka"
    driver_name = "confluent-kafka"

    def _create_source(self, url: str) -> KafkaSource:
        return KafkaSource(url, self.client.transport_options)

    def driver_version(self) -> str:
        return str(confluent_kafka.version()[0])


def _read_timestamp(value: t.Any) -> float | None:
    """Convert a property to seconds since 1970; ``None`` if it is not a time."""
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and value > 0 else None


for _scheme in ("kafka", "kafkas"):
    TRANSPORT_ALIASES[_scheme] = f"{__name__}:Transport"
