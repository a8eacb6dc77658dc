"""The dead letters of one queue: what a compacted topic holds, key by key."""

from __future__ import annotations

import hashlib
import time
import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

from confluent_kafka import Consumer
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition

from ...broker import headers as own_headers
from ...broker.base import DeadLetter
from ...broker.base import DeadLetters
from ...broker.topology import QueuePlan
from ...errors import BrokerUnavailable
from ...message import Message
from . import naming
from . import records
from .client.admin import KafkaAdmin
from .client.admin import Place
from .client.calls import call_in_thread
from .client.calls import create_client
from .client.errors import translate_error
from .client.producer import ProducerRecord
from .records import Fetched
from .topics import TIMEOUT
from .topics import Topics

#: Sends records; for each ``None``, or why it did not arrive.
Send = Callable[[Sequence[ProducerRecord], float], list[Exception | None]]

#: How many are replayed at once.
_PAGE = 100
#: Ends are told, and without waiting for more to come.
_AT_ONCE = {"enable.partition.eof": True, "fetch.wait.max.ms": 10}
_FETCH = 500
#: Seconds that reading all of them takes at the most.
_LONGEST = 120.0


class KafkaDeadLetters(DeadLetters):
    """Reads the topic from its beginning, as no group, so that looking changes nothing.

    :param settings: librdkafka's, for a consumer.
    :param kept: Seconds that a dead letter is kept; Kafka removes it some time later.
    """

    def __init__(
        self,
        plan: QueuePlan,
        settings: t.Mapping[str, t.Any],
        admin: KafkaAdmin,
        topics: Topics,
        send: Send,
        kept: float,
    ) -> None:
        self._plan = plan
        self._topic = naming.dead(plan.name)
        self._settings = settings
        self._admin = admin
        self._topics = topics
        self._send = send
        self._kept = kept

    def count(self) -> int:
        return len(self._records())

    def __iter__(self) -> Iterator[DeadLetter]:
        return (self._letter(record) for record in self._records())

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        taken = 0
        page: list[tuple[Fetched, Message]] = []
        for record in self._records():
            letter = self._letter(record)
            if wanted(letter):
                page.append((record, letter.message))
            if len(page) == _PAGE:
                taken += self._take(page, replay)
                page = []
            progress()
        return taken + (self._take(page, replay) if page else 0)

    def _take(self, page: list[tuple[Fetched, Message]], replay: bool) -> int:
        """Replay what is to be replayed; then remove that, and no more than that."""
        gone = [record for record, _ in page]
        failed: list[Exception] = []
        if replay:
            copies = [self._replayed(message) for _, message in page]
            answers = self._send(copies, TIMEOUT)
            gone = [r for r, e in zip(gone, answers, strict=True) if e is None]
            failed = [error for error in answers if error is not None]
        tombstones = [
            ProducerRecord(self._topic, None, record.key()) for record in gone
        ]
        failed += [error for error in self._send(tombstones, TIMEOUT) if error]
        if failed:
            raise failed[0]
        return len(gone)

    def _replayed(self, message: Message) -> ProducerRecord:
        topic = naming.retry(self._plan.name, 0)
        headers = own_headers.make_replay_headers(message.headers)
        return records.copied(message, headers, topic)

    def _letter(self, record: Fetched) -> DeadLetter:
        message = records.incoming(record, self._plan.name, redelivered=False)
        headers = {
            name: value
            for name, value in message.headers.items()
            if name.startswith(own_headers.PREFIX)
        }
        return DeadLetter(_reference(record), self._plan.name, message, headers)

    def _records(self) -> list[Fetched]:
        """The last record of each key that has not been removed, the oldest first."""
        number = self._topics.look().get(self._topic, 0)
        if not number:
            return []
        places = [(self._topic, n) for n in range(number)]
        begin = self._admin.beginnings(places, TIMEOUT)
        ends = {
            place: end
            for place, end in self._admin.ends(places, TIMEOUT).items()
            if end > begin.get(place, end)
        }
        found = (
            call_in_thread(lambda: self._read(begin, ends), _LONGEST) if ends else []
        )
        oldest = (time.time() - self._kept) * 1_000
        by_key: dict[bytes, Fetched] = {}
        for record in found:
            by_key.pop(record.key() or b"", None)
            # A tombstone of ours has no headers; the copy of a tombstone has.
            if records.headers_of(record) and record.timestamp()[1] >= oldest:
                by_key[record.key() or b""] = record
        return sorted(by_key.values(), key=lambda record: record.timestamp()[1])

    def _read(self, begin: dict[Place, int], ends: dict[Place, int]) -> list[Fetched]:
        """In a native thread: all that is there by now."""
        consumer = create_client(Consumer, {**self._settings, **_AT_ONCE})
        try:
            consumer.assign([TopicPartition(*each, begin[each]) for each in ends])
            return list(_until(consumer, ends))
        finally:
            consumer.close()


def _until(consumer: Consumer, ends: dict[Place, int]) -> Iterator[Fetched]:
    """What is before the ends."""
    silent_until = time.monotonic() + TIMEOUT
    while ends:
        found: list[Fetched] = consumer.consume(_FETCH, 0.1)
        for record in found:
            if _is_end(record):
                ends.pop(_place(record), None)
            elif record.offset() < (end := ends.get(_place(record), 0)):
                yield record
                if record.offset() + 1 == end:
                    del ends[_place(record)]
        if found:
            silent_until = time.monotonic() + TIMEOUT
        elif time.monotonic() > silent_until:
            raise BrokerUnavailable(f"Kafka has sent nothing for {TIMEOUT:g} s.")


def _is_end(record: Fetched) -> bool:
    """Whether this only tells that a partition has no more."""
    error = record.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise translate_error(error)
    return error is not None


def _place(record: Fetched) -> Place:
    return t.cast(str, record.topic()), t.cast(int, record.partition())


def _reference(record: Fetched) -> str:
    """Short, and the same as long as it lies there."""
    return hashlib.sha256(record.key() or b"").hexdigest()[:12]
