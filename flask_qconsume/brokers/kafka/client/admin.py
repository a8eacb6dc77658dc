"""Administration of a Kafka cluster: topics, offsets, groups. Waits cooperatively."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING
from confluent_kafka import OFFSET_END
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition
from confluent_kafka import admin as _admin
from confluent_kafka.admin import AdminClient

from ....first_use import PerProcess
from .calls import ClientErrors
from .calls import call_for_results
from .calls import call_in_thread
from .calls import create_client
from .calls import destroy_within
from .calls import keep_undestroyed
from .client_classes import Consumer
from .errors import is_refusal
from .errors import translate_error
from .partition import PartitionId

#: Seconds that a close waits for the client's threads.
_CLOSE_TIMEOUT_SECONDS = 2.0
#: Seconds of one attempt, after which the client is asked why there is no answer.
_ATTEMPT_TIMEOUT_SECONDS = 1.0
#: Seconds of a request for a single partition.
_ONE_PARTITION_TIMEOUT_SECONDS = 0.5
#: Seconds until all brokers know a new topic, and between two attempts until then.
_PROPAGATION_SECONDS = 3.0
_RETRY_SECONDS = 0.05

#: Errors of a commit by a non-member while the group has members.
_OCCUPIED = (
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.NON_EMPTY_GROUP,
)

# The client has no types for these.
_untyped: t.Any = _admin
_OffsetSpec = _untyped.OffsetSpec


class Committed(t.NamedTuple):
    """The offset that a group has committed for a partition, and its metadata."""

    offset: int
    metadata: str


class NewTopic(t.NamedTuple):
    """A topic to be created."""

    name: str
    partitions: int
    replication_factor: int
    settings: Mapping[str, str]


class KafkaAdmin:
    """A client for administration, which each process creates on first use."""

    def __init__(self, config: Mapping[str, t.Any]) -> None:
        self._config = config
        self._client_errors = ClientErrors()
        settings = {**config, "error_cb": self._client_errors}
        self._client = PerProcess(
            lambda: create_client(AdminClient, settings), leave=keep_undestroyed
        )

    def list_topics(self, timeout: float) -> dict[str, int]:
        """Return the number of partitions of each topic that the user may see."""
        client = self._client.get()
        metadata = call_in_thread(lambda: self._list_topics(client, timeout), timeout)
        return {
            name: len(topic.partitions)
            for name, topic in metadata.topics.items()
            if topic.error is None
        }

    def create(self, topics: Iterable[NewTopic], timeout: float) -> None:
        """Create those topics that do not exist yet.

        :raises BrokerRefused: if the user may not create topics.
        :raises TopologyMismatch: if the broker refuses their settings.
        """
        wanted = [
            _untyped.NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication_factor,
                config=dict(topic.settings),
            )
            for topic in topics
        ]
        if not wanted:
            return
        client = self._client.get()
        for name, answer in call_for_results(
            lambda: client.create_topics(wanted, request_timeout=timeout), timeout
        ).items():
            if isinstance(answer, KafkaException):
                _check_created(name, answer)

    def find_ends(
        self, partitions: Iterable[PartitionId], timeout: float
    ) -> dict[PartitionId, int]:
        """Return the end offset of each partition: that of its next new record."""
        return self._offsets(partitions, _OffsetSpec.latest(), timeout)

    def find_beginnings(
        self, partitions: Iterable[PartitionId], timeout: float
    ) -> dict[PartitionId, int]:
        """Return the offset of each partition's oldest existing record."""
        return self._offsets(partitions, _OffsetSpec.earliest(), timeout)

    def read_committed(
        self, group: str, partitions: Iterable[PartitionId], timeout: float
    ) -> dict[PartitionId, Committed]:
        """Return a group's committed offsets, of the partitions that have one.

        A consumer that joins no group sends the request, because an admin client can
        crash the process if the group's coordinator has moved or does not exist yet.
        https://github.com/confluentinc/librdkafka/issues/5040
        """
        wanted = [TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return {}

        def ask() -> list[TopicPartition]:
            consumer = create_client(Consumer, {**self._config, "group.id": group})
            try:
                return _ask_committed(consumer, wanted, timeout)
            finally:
                consumer.close()

        return {
            (partition.topic, partition.partition): Committed(
                partition.offset, partition.metadata or ""
            )
            for partition in call_in_thread(ask, timeout)
            if partition.offset >= 0
        }

    def commit(
        self, group: str, offsets: Mapping[PartitionId, int], timeout: float
    ) -> bool:
        """Commit offsets for a group; return false if the group has members."""
        if not offsets:
            return True
        topic_partitions = [
            TopicPartition(*partition, offset) for partition, offset in offsets.items()
        ]
        deadline = time.monotonic() + min(timeout, _PROPAGATION_SECONDS)
        while True:
            errors = self._try_commit(group, topic_partitions, timeout)
            if any(error.code() in _OCCUPIED for error in errors.values()):
                return False
            for error in errors.values():
                if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise translate_error(error)
            # The group's coordinator may not know of a new topic yet. A topic that is
            # deleted meanwhile needs no offset.
            if not errors or time.monotonic() > deadline:
                return True
            topic_partitions = [
                TopicPartition(*partition, offsets[partition]) for partition in errors
            ]
            time.sleep(_RETRY_SECONDS)

    def delete(self, group: str, topics: Iterable[str], timeout: float) -> None:
        """Delete a consumer group and topics, if they exist."""
        client = self._client.get()
        limit = {"request_timeout": timeout}
        names = list(topics)
        if names:
            call_for_results(lambda: client.delete_topics(names, **limit), timeout)
        call_for_results(
            lambda: client.delete_consumer_groups([group], **limit), timeout
        )

    def close(self) -> None:
        clients = [self._client.take()]
        if clients != [None]:
            destroy_within(_CLOSE_TIMEOUT_SECONDS, clients.clear)

    def _list_topics(self, client: AdminClient, timeout: float) -> t.Any:
        """List the topics in a native thread; repeat until Kafka answers."""
        deadline = time.monotonic() + timeout
        while True:
            seconds_left = deadline - time.monotonic()
            limit = min(max(seconds_left, 0.01), _ATTEMPT_TIMEOUT_SECONDS)
            try:
                return client.list_topics(timeout=limit)
            except KafkaException as error:
                client.poll(0)
                self._client_errors.check()
                if seconds_left <= _ATTEMPT_TIMEOUT_SECONDS:
                    raise self._client_errors.explain(error) from None

    def _try_commit(
        self, group: str, partitions: list[TopicPartition], timeout: float
    ) -> dict[PartitionId, KafkaError]:
        """Send a commit of offsets; return each failed partition's error."""
        from confluent_kafka import ConsumerGroupTopicPartitions

        wanted = [ConsumerGroupTopicPartitions(group, partitions)]
        alter = self._client.get().alter_consumer_group_offsets
        answers = call_for_results(
            lambda: alter(wanted, request_timeout=timeout), timeout
        )
        (answer,) = answers.values()
        if isinstance(answer, KafkaException):
            raise translate_error(answer) from answer
        committed_partitions = answer.topic_partitions
        return {
            (p.topic, p.partition): p.error for p in committed_partitions if p.error
        }

    def _offsets(
        self, partitions: Iterable[PartitionId], spec: t.Any, timeout: float
    ) -> dict[PartitionId, int]:
        requests = {TopicPartition(*partition): spec for partition in partitions}
        if not requests:
            return {}
        client = self._client.get()
        answers = call_for_results(
            lambda: client.list_offsets(requests, request_timeout=timeout), timeout
        )
        return {
            (partition.topic, partition.partition): answer.offset
            for partition, answer in answers.items()
            # A partition may be deleted, or without a leader just now.
            if not isinstance(answer, KafkaException)
        }


class FilledPartitions:
    """Finds out which partitions hold records.

    A consumer that joins no group sends the requests, because they are repeated during
    an outage, and an admin client can then crash the process.
    https://github.com/confluentinc/librdkafka/issues/3663

    :param config: librdkafka's settings, for a consumer.
    """

    def __init__(self, config: Mapping[str, t.Any]) -> None:
        self._client = PerProcess(
            lambda: create_client(Consumer, config), leave=keep_undestroyed
        )

    def find(
        self, partitions: Collection[PartitionId], timeout: float
    ) -> set[PartitionId]:
        """Return those of the given partitions that hold records.

        :param timeout: Seconds for one request. Two requests cover all partitions; if
            either fails, one request is sent for each partition.
        :raises BrokerError: if the broker does not answer.
        """
        if not partitions:
            return set()
        client = self._client.get()
        limit = 2 * timeout + len(partitions) * _ONE_PARTITION_TIMEOUT_SECONDS
        return call_in_thread(lambda: _find_filled(client, partitions, timeout), limit)

    def close(self) -> None:
        clients = [self._client.take()]
        if clients != [None]:
            destroy_within(_CLOSE_TIMEOUT_SECONDS, clients.clear)


def _ask_committed(
    consumer: Consumer, wanted: list[TopicPartition], timeout: float
) -> list[TopicPartition]:
    """Read committed offsets in a native thread; repeat until Kafka answers."""
    deadline = time.monotonic() + timeout
    while True:
        seconds_left = max(deadline - time.monotonic(), 0.01)
        try:
            committed = consumer.committed(
                wanted, timeout=min(seconds_left, _ATTEMPT_TIMEOUT_SECONDS)
            )
        except KafkaException:
            # The client itself would ask for ever; its next record tells of a refusal.
            record = consumer.poll(0)
            error = None if record is None else record.error()
            if error is not None and is_refusal(error):
                raise KafkaException(error) from None
            if seconds_left <= _ATTEMPT_TIMEOUT_SECONDS:
                raise
            continue
        for failed in (partition.error for partition in committed if partition.error):
            raise KafkaException(failed)
        return committed


def _find_filled(
    client: Consumer, partitions: Collection[PartitionId], timeout: float
) -> set[PartitionId]:
    """Find partitions with records: by one request, or else by one for each."""
    client.poll(0)  # Take the client's errors, which would pile up.
    try:
        first = _ask_offsets(client, partitions, OFFSET_BEGINNING, timeout)
        ends = _ask_offsets(client, partitions, OFFSET_END, timeout)
        return {
            partition
            for partition in partitions
            if first.get(partition, 0) < ends.get(partition, 0)
        }
    except KafkaException as error:
        failed = error.with_traceback(None)
    # One partition without a leader fails the request for all of them. (This is not
    # within the 'except': the client would keep the handled exception for ever.)
    is_filled = {partition: _is_filled(client, partition) for partition in partitions}
    if all(answer is None for answer in is_filled.values()):
        raise failed
    return {partition for partition, answer in is_filled.items() if answer}


def _ask_offsets(
    client: Consumer, partitions: Collection[PartitionId], which: int, timeout: float
) -> dict[PartitionId, int]:
    """Return the first or the end offsets of existing partitions."""
    topic_partitions = [TopicPartition(*partition, which) for partition in partitions]
    offsets = client.offsets_for_times(topic_partitions, timeout=timeout)
    return {(e.topic, e.partition): e.offset for e in offsets if e.error is None}


def _is_filled(client: Consumer, partition: PartitionId) -> bool | None:
    """Return whether a partition holds records, or ``None`` if Kafka did not answer."""
    try:
        watermarks = client.get_watermark_offsets(
            TopicPartition(*partition), timeout=_ONE_PARTITION_TIMEOUT_SECONDS
        )
    except KafkaException:
        return None
    return None if watermarks is None else watermarks[0] < watermarks[1]


def _check_created(name: str, error: KafkaException) -> None:
    if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
        return
    translated = translate_error(error)
    raise type(translated)(
        f"The topic '{name}' was not created. {translated}"
    ) from error
