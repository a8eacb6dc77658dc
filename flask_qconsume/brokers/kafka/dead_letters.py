"""The dead letters of one queue, kept as records of a compacted topic."""

from __future__ import annotations

import hashlib
import time
import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition

from ...broker import headers as own_headers
from ...broker.dead_letters import DeadLetter
from ...broker.dead_letters import DeadLetters
from ...broker.topology import QueuePlan
from ...errors import BrokerUnavailable
from ...message import Message
from . import naming
from . import records
from .client.admin import KafkaAdmin
from .client.calls import call_in_thread
from .client.calls import create_client
from .client.client_classes import Consumer
from .client.errors import translate_error
from .client.partition import PartitionId
from .client.producer import ProducerRecord
from .records import Fetched
from .topics import DEFAULT_TIMEOUT_SECONDS
from .topics import Topics

#: Sends records, with a timeout in seconds; returns ``None`` or the error for each.
Send = Callable[[Sequence[ProducerRecord], float], list[Exception | None]]

#: Number of dead letters that are replayed at once.
_PAGE_SIZE = 100
#: Make the client report the ends of partitions, and fetch without waiting for more.
_READ_SETTINGS = {"enable.partition.eof": True, "fetch.wait.max.ms": 10}
_MAX_FETCH = 500
#: Seconds that reading all dead letters may take.
_READ_TIMEOUT_SECONDS = 120.0


class KafkaDeadLetters(DeadLetters):
    """Lists, replays and removes the dead letters of one queue.

    Reading changes nothing: no consumer group is used, and each reading starts at the
    beginning of the topic.

    :param settings: librdkafka's settings, for a consumer.
    :param kept: Seconds for which a dead letter is listed; Kafka deletes its record
        some time later.
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
        self._topic = naming.dead_letter_topic(plan.name)
        self._settings = settings
        self._admin = admin
        self._topics = topics
        self._send_records = send
        self._retention_seconds = kept

    def count(self) -> int:
        return len(self._list_records())

    def __iter__(self) -> Iterator[DeadLetter]:
        return (self._create_letter(record) for record in self._list_records())

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        taken_count = 0
        page: list[tuple[Fetched, Message]] = []
        for record in self._list_records():
            letter = self._create_letter(record)
            if wanted(letter):
                page.append((record, letter.message))
            if len(page) == _PAGE_SIZE:
                taken_count += self._take(page, replay)
                page = []
            progress()
        return taken_count + (self._take(page, replay) if page else 0)

    def _take(self, page: list[tuple[Fetched, Message]], replay: bool) -> int:
        """Remove the wanted dead letters; return their number.

        If ``replay`` is true, first publish a copy of each dead letter. A dead letter
        of which the copy fails is not removed.
        """
        removed_records = [record for record, _ in page]
        failed: list[Exception] = []
        if replay:
            copies = [self._create_replay(message) for _, message in page]
            answers = self._send_records(copies, DEFAULT_TIMEOUT_SECONDS)
            removed_records = [
                r for r, e in zip(removed_records, answers, strict=True) if e is None
            ]
            failed = [error for error in answers if error is not None]
        tombstones = [
            ProducerRecord(self._topic, None, record.key())
            for record in removed_records
        ]
        failed += [
            error
            for error in self._send_records(tombstones, DEFAULT_TIMEOUT_SECONDS)
            if error
        ]
        if failed:
            raise failed[0]
        return len(removed_records)

    def _create_replay(self, message: Message) -> ProducerRecord:
        topic = naming.retry_topic(self._plan.name, 0)
        headers = own_headers.make_replay_headers(message.headers)
        return records.create_copy(message, headers, topic)

    def _create_letter(self, record: Fetched) -> DeadLetter:
        message = records.read_record(record, self._plan.name, redelivered=False)
        headers = {
            name: value
            for name, value in message.headers.items()
            if name.startswith(own_headers.PREFIX)
        }
        return DeadLetter(_reference(record), self._plan.name, message, headers)

    def _list_records(self) -> list[Fetched]:
        """Return the records of all existing dead letters, the oldest first."""
        number = self._topics.look().get(self._topic, 0)
        if not number:
            return []
        partitions = [(self._topic, n) for n in range(number)]
        begin = self._admin.find_beginnings(partitions, DEFAULT_TIMEOUT_SECONDS)
        ends = {
            partition: end
            for partition, end in self._admin.find_ends(
                partitions, DEFAULT_TIMEOUT_SECONDS
            ).items()
            if end > begin.get(partition, end)
        }
        record_pages = (
            call_in_thread(lambda: self._read(begin, ends), _READ_TIMEOUT_SECONDS)
            if ends
            else []
        )
        oldest = (time.time() - self._retention_seconds) * 1_000
        by_key: dict[bytes, Fetched] = {}
        for record in record_pages:
            by_key.pop(record.key() or b"", None)
            # A tombstone that removes a dead letter has no headers.
            if records.read_headers(record) and record.timestamp()[1] >= oldest:
                by_key[record.key() or b""] = record
        return sorted(by_key.values(), key=lambda record: record.timestamp()[1])

    def _read(
        self, begin: dict[PartitionId, int], ends: dict[PartitionId, int]
    ) -> list[Fetched]:
        """Read records in a native thread, up to the end offsets ``ends``."""
        consumer = create_client(Consumer, {**self._settings, **_READ_SETTINGS})
        try:
            consumer.assign(
                [TopicPartition(*partition, begin[partition]) for partition in ends]
            )
            return list(_read_until(consumer, ends))
        finally:
            consumer.close()


def _read_until(consumer: Consumer, ends: dict[PartitionId, int]) -> Iterator[Fetched]:
    """Yield records until each partition has been read up to its end offset."""
    give_up_at = time.monotonic() + DEFAULT_TIMEOUT_SECONDS
    while ends:
        records: list[Fetched] = consumer.consume(_MAX_FETCH, 0.1)
        for record in records:
            if _is_end(record):
                ends.pop(_partition_of(record), None)
            elif record.offset() < (end := ends.get(_partition_of(record), 0)):
                yield record
                if record.offset() + 1 == end:
                    del ends[_partition_of(record)]
        if records:
            give_up_at = time.monotonic() + DEFAULT_TIMEOUT_SECONDS
        elif time.monotonic() > give_up_at:
            raise BrokerUnavailable(
                f"Kafka has sent nothing for {DEFAULT_TIMEOUT_SECONDS:g} s."
            )


def _is_end(record: Fetched) -> bool:
    """Return whether the client reports the end of a partition, and no record.

    :raises BrokerError: if the client reports an error.
    """
    error = record.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise translate_error(error)
    return error is not None


def _partition_of(record: Fetched) -> PartitionId:
    return t.cast(str, record.topic()), t.cast(int, record.partition())


def _reference(record: Fetched) -> str:
    """Return the short text by which commands name a dead letter: a hash of its key."""
    return hashlib.sha256(record.key() or b"").hexdigest()[:12]
