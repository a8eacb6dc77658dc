"""Names and attributes of spans, by OpenTelemetry's conventions for messaging.

The conventions have the status "Development", so their version is pinned here. With
``messaging/dup`` in ``OTEL_SEMCONV_STABILITY_OPT_IN``, spans also have the names of
version 1.24, which most instrumentations of other libraries still use.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

import os
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence
from urllib.parse import urlsplit

from ..message import Message
from ..message import Outgoing
from ..registration.consumer import Consumer
from ..settings import Settings
from ..text import shorten
from ..text import stringify

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
PARTITION = "messaging.destination.partition.id"
MESSAGE_ID = "messaging.message.id"
CONVERSATION_ID = "messaging.message.conversation_id"
BODY_SIZE = "messaging.message.body.size"
MESSAGE_COUNT = "messaging.batch.message_count"
GROUP = "messaging.consumer.group.name"
RABBITMQ_ROUTING_KEY = "messaging.rabbitmq.destination.routing_key"
KAFKA_KEY = "messaging.kafka.message.key"
KAFKA_OFFSET = "messaging.kafka.offset"
KAFKA_TOMBSTONE = "messaging.kafka.message.tombstone"
ERROR_TYPE = "error.type"

#: Our own, which the conventions do not have.
CONSUMER = "qconsume.consumer"
ATTEMPT = "qconsume.attempt"
OUTCOME = "qconsume.outcome"
LINK = "qconsume.link"

#: Names of version 1.24 by today's names, and its names of operations.
_FORMER_NAMES = {
    OPERATION_TYPE: "messaging.operation",
    PARTITION: "messaging.kafka.destination.partition",
    GROUP: "messaging.kafka.consumer.group",
    KAFKA_OFFSET: "messaging.kafka.message.offset",
}
_FORMER_OPERATIONS = {"send": "publish", "process": "deliver"}

#: Characters of the longest name, id or key.
_MAX_LENGTH = 255

Attributes = dict[str, t.Any]


class NamedSpan(t.NamedTuple):
    """The name and the attributes of a span that is about to start."""

    name: str
    attributes: Attributes


class SpanDescriber:
    """Describes the spans of one app: their names and attributes.

    :param broker: The broker's name, as its capabilities tell it.
    :param settings: The app's settings, for the broker's address and the prefix.
    """

    def __init__(self, broker: str, settings: Settings) -> None:
        #: ``"rabbitmq"``, ``"kafka"``, ``"redis"`` or ``"memory"``.
        self._system = broker.lower().split()[0]
        self._prefix = settings.queue_prefix
        self._server = _find_server(settings.broker_url)
        self._doubled = "messaging/dup" in _read_opt_ins()
        #: What all spans of a consumer and an operation share.
        self._shared: dict[tuple[str, str], Attributes] = {}

    def describe_publish(self, message: Outgoing, operation: str) -> NamedSpan:
        """Describe the publishing of a message, or (``"create"``) its creation."""
        destination = self._find_destination(message)
        attributes = self._describe_operation(
            operation, "create" if operation == "create" else "send", destination
        )
        attributes[BODY_SIZE] = len(message.body)
        if message.id is not None:
            attributes[MESSAGE_ID] = shorten_text(message.id)
        if message.tombstone:
            attributes[KAFKA_TOMBSTONE] = True
        self._add_keys(attributes, message)
        return NamedSpan(f"{operation} {destination}", self._double(attributes))

    def describe_publishes(self, messages: Sequence[Outgoing]) -> NamedSpan:
        """Describe the publishing of several messages together."""
        found = {self._find_destination(message) for message in messages}
        destination = found.pop() if len(found) == 1 else ""
        attributes = self._describe_operation("publish", "send", destination)
        attributes[MESSAGE_COUNT] = len(messages)
        return NamedSpan(f"publish {destination}".rstrip(), self._double(attributes))

    def describe_process(self, consumer: Consumer, message: Message) -> NamedSpan:
        """Describe the handling of a message."""
        attributes = self._describe_consumer(consumer, "process", "process")
        attributes[ATTEMPT] = message.attempt
        attributes[BODY_SIZE] = len(message.raw)
        self._add_identity(attributes, consumer, message)
        if "correlation_id" in message.properties:
            conversation = message.properties["correlation_id"]
            attributes[CONVERSATION_ID] = shorten_text(conversation)
        self._add_keys(attributes, message)
        return NamedSpan(f"process {consumer.queue}", attributes)

    def describe_settle(
        self, consumer: Consumer, action: str, message: Message
    ) -> NamedSpan:
        """Describe the settlement of a message."""
        attributes = self._describe_consumer(consumer, action, "settle")
        self._add_identity(attributes, consumer, message)
        return NamedSpan(f"{action} {consumer.queue}", attributes)

    def _describe_operation(
        self, operation: str, kind: str, destination: str
    ) -> Attributes:
        attributes = {
            SYSTEM: self._system,
            OPERATION_NAME: operation,
            OPERATION_TYPE: kind,
            **self._server,
        }
        if destination:
            attributes[DESTINATION] = destination
        return attributes

    def _describe_consumer(
        self, consumer: Consumer, operation: str, kind: str
    ) -> Attributes:
        shared = self._shared.get((consumer.name, operation))
        if shared is None:
            shared = self._describe_operation(operation, kind, consumer.queue)
            shared[CONSUMER] = consumer.name
            if self._system == "kafka":
                shared[GROUP] = consumer.queue
            shared = self._double(shared)
            self._shared[consumer.name, operation] = shared
        return shared.copy()

    def _add_identity(
        self, attributes: Attributes, consumer: Consumer, message: Message
    ) -> None:
        if message.id is not None:
            attributes[MESSAGE_ID] = shorten_text(message.id)
        if self._system == "rabbitmq":
            parts = (message.exchange, message.routing_key, consumer.queue)
            attributes[DESTINATION] = _join(parts)
        elif self._system == "kafka":
            self._add_place(attributes, message.properties)

    def _add_place(
        self, attributes: Attributes, properties: Mapping[str, t.Any]
    ) -> None:
        if "topic" in properties:
            attributes[DESTINATION] = properties["topic"]
            attributes[PARTITION] = str(properties["partition"])
            attributes[KAFKA_OFFSET] = properties["offset"]
            if self._doubled:
                attributes |= _name_as_before(attributes)

    def _add_keys(self, attributes: Attributes, message: Message | Outgoing) -> None:
        if self._system == "rabbitmq" and message.routing_key:
            attributes[RABBITMQ_ROUTING_KEY] = shorten_text(message.routing_key)
        elif self._system == "kafka" and message.key is not None:
            attributes[KAFKA_KEY] = shorten_text(message.key)

    def _find_destination(self, message: Outgoing) -> str:
        """Return a topic's name on Kafka, elsewhere the exchange and routing key."""
        if self._system == "kafka":
            prefix = self._prefix if message.exchange else ""
            return shorten_text(prefix + message.routing_key)
        return _join((message.exchange, message.routing_key))

    def _double(self, attributes: Attributes) -> Attributes:
        """Add the former names of attributes, if the user has asked for them."""
        return attributes | _name_as_before(attributes) if self._doubled else attributes


def shorten_text(value: object) -> str:
    """Bound the length of a text, and replace what UTF-8 cannot encode.

    Exporters write UTF-8; a text that cannot be written would cost its whole batch.
    """
    text = value if isinstance(value, str) else stringify(value)
    if len(text) <= _MAX_LENGTH and text.isascii():
        return text
    return shorten(text.encode("utf-8", "replace").decode(), _MAX_LENGTH)


def _join(parts: tuple[str, ...]) -> str:
    """Join the names of a destination on RabbitMQ, each once, without empty ones."""
    return shorten_text(":".join(dict.fromkeys(part for part in parts if part)))


def _name_as_before(attributes: Attributes) -> Attributes:
    return {
        former: _FORMER_OPERATIONS.get(attributes[name], attributes[name])
        for name, former in _FORMER_NAMES.items()
        if name in attributes
    }


def _read_opt_ins() -> set[str]:
    text = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "")
    return {word.strip() for word in text.split(",")}


def _find_server(url: str) -> Attributes:
    """Return the broker's host and port, if the URL has one host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # Several hosts, each with a port.
        return {}
    if not host or "," in parts.netloc or ";" in url:
        return {}
    return {"server.address": host} | ({"server.port": port} if port else {})
