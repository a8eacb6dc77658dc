"""Sending: what is published, and what goes elsewhere than it came from."""

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
from ...message import Outgoing
from ...text import quote
from . import naming
from . import records
from .client.producer import KafkaProducer
from .client.producer import ProducerRecord
from .topics import Topics


class Publisher:
    """Makes records of messages, and sends them to topics that are there."""

    def __init__(
        self, producer: KafkaProducer, topics: Topics, prefix: str = ""
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._prefix = prefix

    def composed(self, messages: Sequence[Outgoing]) -> list[ProducerRecord]:
        """The records of messages.

        :raises UnsupportedByBroker: for a name that no topic can have.
        """
        return [self._record(message) for message in messages]

    def publish(
        self,
        messages: Sequence[Outgoing],
        planned: Sequence[ProducerRecord],
        timeout: float,
    ) -> list[Exception | None]:
        """Send records to topics that are there; for each ``None``, or what failed."""
        deadline = time.monotonic() + timeout
        found = [
            self._is_there(message, record.topic, deadline)
            for message, record in zip(messages, planned, strict=True)
        ]
        sent = self._send(
            [record for record, there in zip(planned, found, strict=True) if there],
            deadline,
        )
        return [
            _answer(message, record.topic, next(sent) if there else _MISSING)
            for message, record, there in zip(messages, planned, found, strict=True)
        ]

    def forward(
        self, forwards: Sequence[Forward], timeout: float
    ) -> list[Exception | None]:
        """Send copies to where they go; for each ``None``, or why it did not arrive."""
        deadline = time.monotonic() + timeout
        now = time.time()
        try:
            copies = [self._copy(forward, now) for forward in forwards]
            self._topics.ensure({copy.topic for copy in copies}, timeout)
            return list(self._send(copies, deadline))
        except BrokerError as error:
            return [error] * len(forwards)

    def replay(
        self, copies: Sequence[ProducerRecord], timeout: float
    ) -> list[Exception | None]:
        """Send records of ours, to topics that are created if they are not there."""
        self._topics.ensure({copy.topic for copy in copies}, timeout)
        return list(self._send(copies, time.monotonic() + timeout))

    def _send(
        self, found: Sequence[ProducerRecord], deadline: float
    ) -> t.Iterator[Exception | None]:
        if not found:
            return iter(())
        left = max(deadline - time.monotonic(), 0.001)
        errors = self._producer.send(found, left)
        # The client looks for a topic that was deleted until the time is over.
        if any(isinstance(error, (Unroutable, PublishTimeout)) for error in errors):
            self._topics.forget()
        return iter(errors)

    def _is_there(self, message: Outgoing, topic: str, deadline: float) -> bool:
        left = max(deadline - time.monotonic(), 0.001)
        if self._topics.partitions(topic, left):
            return True
        # A queue that is there gets the topic of a new delay when it is used first.
        known = naming.retry(message.routing_key, 0)
        if message.exchange or not self._topics.partitions(known, left):
            return False
        self._topics.ensure([topic], left)
        return True

    def _record(self, message: Outgoing) -> ProducerRecord:
        if message.exchange == "":
            return self._for_queue(message)
        topic = self._prefix + message.routing_key
        naming.check_topic(topic, "The routing key")
        return records.outgoing(message, topic, prefix=self._prefix)

    def _for_queue(self, message: Outgoing) -> ProducerRecord:
        """What is for one queue alone is as if it were retried."""
        queue, delay = message.routing_key, message.delay
        naming.check_topic(naming.retry(queue, 0), "The queue's topic")
        if not delay:
            return records.outgoing(message, naming.retry(queue, 0))
        topic = self._topics.retry(queue, delay)
        return records.outgoing(message, topic, due=time.time() + delay)

    def _copy(self, forward: Forward, now: float) -> ProducerRecord:
        delivery: Delivery = forward.delivery
        queue = delivery.link.plan.name
        message = delivery.message
        if forward.lane is Lane.SUSPECTS:
            return records.copied(message, forward.headers, naming.suspects(queue))
        if forward.lane is Lane.DEAD:
            key = records.dead_key(message)
            return records.copied(message, forward.headers, naming.dead(queue), key=key)
        delay = min(forward.delay, naming.LONGEST)
        topic = self._topics.retry(queue, delay)
        due = now + delay if delay else None
        return records.copied(message, forward.headers, topic, due=due)


_MISSING = Unroutable("")


def _answer(message: Outgoing, topic: str, error: Exception | None) -> Exception | None:
    """What is not mandatory may get lost where nobody is."""
    if not isinstance(error, Unroutable):
        return error
    if not message.mandatory:
        return None
    if not message.exchange:
        return make_unroutable_error(message)
    return Unroutable(
        f"There is no topic {quote(topic)}, so nobody would get the"
        " message. Register a consumer for it, run 'flask qconsume declare' in the app"
        " that has it, create the topic, or publish with mandatory=False."
    )
