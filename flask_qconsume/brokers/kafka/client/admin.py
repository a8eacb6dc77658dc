"""Topics and groups of a Kafka: looked up, created, measured. Waits cooperatively."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterable
from collections.abc import Mapping

from confluent_kafka import Consumer
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
from .errors import is_refusal
from .errors import translate_error

#: A partition of a topic.
Place = tuple[str, int]

_GRACE = 2.0
#: Seconds of a look at the topics, after which it is asked whether we are refused.
_LOOK = 1.0
#: Seconds in which all brokers have heard of a new topic, and between two attempts.
_SETTLED = 3.0
_PAUSE = 0.05


#: The client has no types for these.
_untyped: t.Any = _admin
_NewTopic = _untyped.NewTopic
_OffsetSpec = _untyped.OffsetSpec


class Committed(t.NamedTuple):
    """What a group has committed for a partition."""

    offset: int
    metadata: str


class NewTopic(t.NamedTuple):
    """A topic that is to be created."""

    name: str
    partitions: int
    replication_factor: int
    settings: Mapping[str, str]


class KafkaAdmin:
    """Opens nothing before it is used; a forked child has a client of its own."""

    def __init__(self, config: Mapping[str, t.Any]) -> None:
        self._config = config
        self._complaints = ClientErrors()
        settings = {**config, "error_cb": self._complaints}
        self._client = PerProcess(
            lambda: create_client(AdminClient, settings), leave=keep_undestroyed
        )

    def topics(self, timeout: float) -> dict[str, int]:
        """All topics that we may see, and how many partitions each has."""
        client = self._client.get()
        found = call_in_thread(lambda: self._listed(client, timeout), timeout)
        return {
            name: len(topic.partitions)
            for name, topic in found.topics.items()
            if topic.error is None
        }

    def _listed(self, client: AdminClient, timeout: float) -> t.Any:
        """In a native thread: look again and again, and at what the client says."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                return client.list_topics(timeout=min(max(left, 0.01), _LOOK))
            except KafkaException as error:
                client.poll(0)
                self._complaints.check()
                if left <= _LOOK:
                    raise self._complaints.explained(error) from None

    def create(self, topics: Iterable[NewTopic], timeout: float) -> None:
        """Create topics; one that is there by now is fine.

        :raises BrokerRefused: if we may not.
        :raises TopologyMismatch: if the broker does not take it like that.
        """
        wanted = [
            _NewTopic(
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

    def ends(self, places: Iterable[Place], timeout: float) -> dict[Place, int]:
        """The offset behind the last record of each partition."""
        return self._offsets(places, _OffsetSpec.latest(), timeout)

    def beginnings(self, places: Iterable[Place], timeout: float) -> dict[Place, int]:
        """The offset of the first record that is kept of each partition."""
        return self._offsets(places, _OffsetSpec.earliest(), timeout)

    def committed(
        self, group: str, places: Iterable[Place], timeout: float
    ) -> dict[Place, Committed]:
        """What a group has committed for partitions, as far as it has.

        A consumer asks, which joins no group: the client for administration crashes the
        process when the group's coordinator has moved, or is not there yet.
        https://github.com/confluentinc/librdkafka/issues/5040
        """
        wanted = [TopicPartition(*place) for place in places]
        if not wanted:
            return {}

        def ask() -> list[TopicPartition]:
            consumer = create_client(Consumer, {**self._config, "group.id": group})
            try:
                return _committed(consumer, wanted, timeout)
            finally:
                consumer.close()

        return {
            (found.topic, found.partition): Committed(
                found.offset, found.metadata or ""
            )
            for found in call_in_thread(ask, timeout)
            if found.offset >= 0
        }

    def commit(self, group: str, offsets: Mapping[Place, int], timeout: float) -> bool:
        """Commit offsets for a group, unless it has members; whether it had none."""
        if not offsets:
            return True
        wanted = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        deadline = time.monotonic() + min(timeout, _SETTLED)
        while True:
            errors = self._altered(group, wanted, timeout)
            if any(error.code() in _OCCUPIED for error in errors.values()):
                return False
            for error in errors.values():
                if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise translate_error(error)
            # The group's coordinator may not have heard of a new topic yet; one that is
            # deleted meanwhile has no offset to be committed.
            if not errors or time.monotonic() > deadline:
                return True
            wanted = [TopicPartition(*place, offsets[place]) for place in errors]
            time.sleep(_PAUSE)

    def _altered(
        self, group: str, places: list[TopicPartition], timeout: float
    ) -> dict[Place, KafkaError]:
        """Commit offsets for a group; what failed."""
        from confluent_kafka import ConsumerGroupTopicPartitions

        wanted = [ConsumerGroupTopicPartitions(group, places)]
        alter = self._client.get().alter_consumer_group_offsets
        found = call_for_results(
            lambda: alter(wanted, request_timeout=timeout), timeout
        )
        (answer,) = found.values()
        if isinstance(answer, KafkaException):
            raise translate_error(answer) from answer
        each = answer.topic_partitions
        return {(p.topic, p.partition): p.error for p in each if p.error}

    def delete(self, group: str, topics: Iterable[str], timeout: float) -> None:
        """Delete topics, and a group, as far as they are there."""
        client = self._client.get()
        limit = {"request_timeout": timeout}
        names = list(topics)
        if names:
            call_for_results(lambda: client.delete_topics(names, **limit), timeout)
        call_for_results(
            lambda: client.delete_consumer_groups([group], **limit), timeout
        )

    def close(self) -> None:
        """Close what is open. Using it again opens it anew."""
        clients = [self._client.take()]
        if clients != [None]:
            destroy_within(_GRACE, clients.clear)

    def _offsets(
        self, places: Iterable[Place], spec: t.Any, timeout: float
    ) -> dict[Place, int]:
        wanted = {TopicPartition(*place): spec for place in places}
        if not wanted:
            return {}
        client = self._client.get()
        found = call_for_results(
            lambda: client.list_offsets(wanted, request_timeout=timeout), timeout
        )
        return {
            (place.topic, place.partition): answer.offset
            for place, answer in found.items()
            # A partition may be gone, or without a leader just now.
            if not isinstance(answer, KafkaException)
        }


def _committed(
    consumer: Consumer, wanted: list[TopicPartition], timeout: float
) -> list[TopicPartition]:
    """In a native thread: ask until there is an answer, or the group is refused."""
    deadline = time.monotonic() + timeout
    while True:
        left = max(deadline - time.monotonic(), 0.01)
        try:
            found = consumer.committed(wanted, timeout=min(left, _LOOK))
        except KafkaException:
            # The client goes on asking, and tells why that is in vain as a record.
            told = consumer.poll(0)
            error = None if told is None else told.error()
            if error is not None and is_refusal(error):
                raise KafkaException(error) from None
            if left <= _LOOK:
                raise
            continue
        for failed in (each.error for each in found if each.error):
            raise KafkaException(failed)
        return found


def _check_created(name: str, error: KafkaException) -> None:
    if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
        return
    found = translate_error(error)
    raise type(found)(f"The topic '{name}' was not created. {found}") from error


#: What commits of a client without membership fail by while a group has members.
_OCCUPIED = (
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.NON_EMPTY_GROUP,
)
