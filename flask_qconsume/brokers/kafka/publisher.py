"""Publishes messages, and forwards copies of them."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Sequence

from ...broker.compose import make_unroutable_error
from ...broker.link import Delivery
from ...broker.link import Forward
from ...broker.link import Lane
from ...errors import BrokerError
from ...errors import PublishTimeout
from ...errors import Unroutable
from ...first_use import PerProcess
from ...message import Outgoing
from ...text import quote
from . import naming
from . import records
from .client.producer import KafkaProducer
from .client.producer import ProducerRecord
from .topics import Topics


class Publisher:
    """Converts messages to Kafka records, and sends records whose topics exist."""

    def __init__(
        self, producer: PerProcess[KafkaProducer], topics: Topics, prefix: str = ""
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._prefix = prefix

    def compose(self, messages: Sequence[Outgoing]) -> list[ProducerRecord]:
        """Convert outgoing messages to Kafka records.

        :raises UnsupportedByBroker: for a name that Kafka forbids for topics.
        """
        return [self._create_record(message) for message in messages]

    def publish(
        self,
        messages: Sequence[Outgoing],
        composed: Sequence[ProducerRecord],
        timeout: float,
    ) -> list[Exception | None]:
        """Send records, if their topics exist; return ``None`` or an error for each."""
        deadline = time.monotonic() + timeout
        topics_exist = [
            self._topic_exists(message, record.topic, deadline)
            for message, record in zip(messages, composed, strict=True)
        ]
        sent = self._send(
            [
                record
                for record, topic_exists in zip(composed, topics_exist, strict=True)
                if topic_exists
            ],
            deadline,
        )
        return [
            _result_for_caller(
                message, record.topic, next(sent) if topic_exists else _MISSING
            )
            for message, record, topic_exists in zip(
                messages, composed, topics_exist, strict=True
            )
        ]

    def forward(
        self, forwards: Sequence[Forward], timeout: float
    ) -> list[Exception | None]:
        """Send copies of messages; return ``None`` or the error for each copy."""
        deadline = time.monotonic() + timeout
        now = time.time()
        try:
            copies = [self._create_copy(forward, now) for forward in forwards]
            self._topics.ensure({copy.topic for copy in copies}, timeout)
            return list(self._send(copies, deadline))
        except BrokerError as error:
            return [error] * len(forwards)

    def replay(
        self, copies: Sequence[ProducerRecord], timeout: float
    ) -> list[Exception | None]:
        """Send records to this package's own topics; create topics that are missing."""
        self._topics.ensure({copy.topic for copy in copies}, timeout)
        return list(self._send(copies, time.monotonic() + timeout))

    def _send(
        self, records: Sequence[ProducerRecord], deadline: float
    ) -> t.Iterator[Exception | None]:
        if not records:
            return iter(())
        seconds_left = max(deadline - time.monotonic(), 0.001)
        errors = self._producer.get().send(records, seconds_left)
        # For a deleted topic, the client tries until the time is over.
        if any(isinstance(error, (Unroutable, PublishTimeout)) for error in errors):
            self._topics.forget()
        return iter(errors)

    def _topic_exists(self, message: Outgoing, topic: str, deadline: float) -> bool:
        seconds_left = max(deadline - time.monotonic(), 0.001)
        if self._topics.count_partitions(topic, seconds_left):
            return True
        # For an existing queue, the topic of another delay is created on first use.
        group_topic = naming.retry_topic(message.routing_key, 0)
        if message.exchange or not self._topics.count_partitions(
            group_topic, seconds_left
        ):
            return False
        self._topics.ensure([topic], seconds_left)
        return True

    def _create_record(self, message: Outgoing) -> ProducerRecord:
        if message.exchange == "":
            return self._create_queue_record(message)
        topic = self._prefix + message.routing_key
        naming.check_topic(topic, "The routing key")
        return records.create_record(message, topic, prefix=self._prefix)

    def _create_queue_record(self, message: Outgoing) -> ProducerRecord:
        """Convert a message that names its queue to a record for a retry topic."""
        queue, delay = message.routing_key, message.delay
        naming.check_topic(naming.retry_topic(queue, 0), "The queue's topic")
        if not delay:
            return records.create_record(message, naming.retry_topic(queue, 0))
        topic = self._topics.retry_topic(queue, delay)
        return records.create_record(message, topic, due=time.time() + delay)

    def _create_copy(self, forward: Forward, now: float) -> ProducerRecord:
        delivery: Delivery = forward.delivery
        queue = delivery.link.plan.name
        message = delivery.message
        if forward.lane is Lane.SUSPECTS:
            return records.create_copy(
                message, forward.headers, naming.suspects_topic(queue)
            )
        if forward.lane is Lane.DEAD:
            key = records.create_dead_letter_key(message)
            return records.create_copy(
                message, forward.headers, naming.dead_letter_topic(queue), key=key
            )
        delay = min(forward.delay, naming.MAX_DELAY_SECONDS)
        topic = self._topics.retry_topic(queue, delay)
        due = now + delay if delay else None
        return records.create_copy(message, forward.headers, topic, due=due)


_MISSING = Unroutable("")


def _result_for_caller(
    message: Outgoing, topic: str, error: Exception | None
) -> Exception | None:
    """Return a record's error, but no error for a topic that need not exist."""
    if not isinstance(error, Unroutable):
        return error
    if not message.mandatory:
        return None
    if not message.exchange:
        return make_unroutable_error(message)
    return Unroutable(
        f"There is no topic {quote(topic)}, so no consumer would get the"
        " message. Register a consumer for it, run 'flask qconsume declare' in the app"
        " that has it, create the topic, or publish with mandatory=False."
    )
