"""Kafka as an app's broker: a group for each queue, a topic for each routing key."""

from __future__ import annotations

import dataclasses
import time
import typing as t
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker.base import Broker
from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.checks import check_messages
from ...broker.dead_letters import DeadLetters
from ...broker.headers import PREVIOUS_ATTEMPT
from ...broker.link import Forward
from ...broker.link import Lane
from ...broker.link import Link
from ...broker.names import Name
from ...broker.names import list_names
from ...broker.reachability import is_any_reachable
from ...broker.topology import Binding
from ...broker.topology import QueuePlan
from ...broker.topology import Topology
from ...errors import BrokerError
from ...errors import UnsupportedByBroker
from ...first_use import PerProcess
from ...message import Message
from ...message import Outgoing
from ...settings import Settings
from . import naming
from . import records
from .backlog import KafkaBacklog
from .capabilities import CAPABILITIES
from .client.admin import FilledPartitions
from .client.admin import KafkaAdmin
from .client.calls import keep_undestroyed
from .client.config import create_kafka_config
from .client.partition import ReadyRecord
from .client.producer import KafkaProducer
from .dead_letters import KafkaDeadLetters
from .declare import TopicDeclaration
from .group_starts import GroupStarts
from .lag import Backlog
from .link import KafkaLink
from .link import MessageReader
from .link import create_terms
from .publisher import Publisher
from .suspect_groups import SuspectGroups
from .tls_checks import check_files
from .topics import DEFAULT_TIMEOUT_SECONDS
from .topics import TopicListeners
from .topics import Topics

#: The group of clients that only look at topics. Nothing is ever committed for it.
_LOOKING_GROUP = "_qconsume.dead-letters"


class Kafka(Broker):
    """The Kafka broker of one app in one process, which connects on first use."""

    capabilities = CAPABILITIES
    link: t.ClassVar[type[KafkaLink]] = KafkaLink

    def __init__(self, settings: Settings, topology: Topology) -> None:
        super().__init__(settings, topology)
        self._config = create_kafka_config(
            settings.broker_url, settings.transport_options, 2 * settings.heartbeat
        )
        check_files(self._config)
        at_the_end = self._config.begins_at_the_end
        looking_config = self._config.consumer(_LOOKING_GROUP)
        self._admin = KafkaAdmin(self._config.admin())
        producing = self._config.producer(settings.publish_timeout)
        self._producer = PerProcess(
            lambda: KafkaProducer(producing), leave=keep_undestroyed
        )
        self._topics = Topics(
            self._admin, self._config, settings, self._on_topics_changed
        )
        self._topic_listeners = TopicListeners()
        self._backlog = Backlog(self._admin, self._topics, looking_config)
        self._backlog_reader = KafkaBacklog(self._admin, self._topics, looking_config)
        self._group_starts = GroupStarts(
            self._admin,
            self._topics.look,
            lambda *args: self._producer.get().send(*args),
            at_the_end=at_the_end,
        )
        self._declaration = TopicDeclaration(
            settings,
            lambda: self.topology.queues,
            self._topics,
            self._group_starts,
            at_the_end=at_the_end,
        )
        self._filled_partitions = FilledPartitions(looking_config)
        self._suspect_groups = SuspectGroups(
            lambda topic: self._topics.known.get(topic, 0),
            self._filled_partitions.find,
        )
        self._publisher = Publisher(self._producer, self._topics, settings.queue_prefix)

    def names(self) -> Iterator[Name]:
        """Yield the names of the app's consumer groups.

        Names of topics need no check: apps may share the topics of routing keys, and
        the topics of retries, suspects and dead letters have a prefix of this package.
        """
        for plan in self.topology.queues:
            main, suspects, _ = list_names(plan)
            yield main
            yield suspects

    def companion_names(self, plan: QueuePlan) -> tuple[str, str]:
        return naming.suspects_topic(plan.name), naming.dead_letter_topic(plan.name)

    def check_names(self) -> None:
        naming.check_prefix(self.settings.queue_prefix)
        for plan in self.topology.queues:
            naming.check_plan(plan)
        naming.check_distinct(self.topology.queues)
        super().check_names()

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        self._declaration.ensure(DEFAULT_TIMEOUT_SECONDS)
        group, main = naming.group_of(plan, lane), lane is Lane.MAIN
        if main:
            self._group_starts.begin([plan], DEFAULT_TIMEOUT_SECONDS)
            self._group_starts.check(plan, DEFAULT_TIMEOUT_SECONDS)
        link = self.link(
            plan,
            lane,
            config=self._config.consumer(group, self.settings.lease),
            topics=naming.subscription(plan, lane),
            terms=create_terms(
                plan,
                lane,
                prefetch,
                delayed=naming.is_retry_topic,
                due=records.read_due_time,
                grace=self._config.grace,
            ),
            read_message=_create_reader(group, self.topology.exchange, plan.prefix),
            forwarder=self._forward,
            refresh=self._refresh,
            look=self._topics.look,
            declared=self._declaration.topics_of(plan),
            is_wanted=(
                None if main else lambda: self._suspect_groups.is_in_use(plan.name)
            ),
        )
        self._topic_listeners.add(link, self._topics.known)
        if not main:
            self._suspect_groups.add(plan.name, link)
        return link

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        composed = self._publisher.compose(messages)
        deadline = time.monotonic() + timeout
        try:
            self._declaration.ensure(timeout)
            left = max(deadline - time.monotonic(), 0.1)
            return self._publisher.publish(messages, composed, left)
        except UnsupportedByBroker:
            raise
        except BrokerError as error:
            return [error] * len(messages)

    def declare(self) -> None:
        self._declaration.declare(DEFAULT_TIMEOUT_SECONDS)

    def stale_bindings(self) -> list[Binding]:
        """Return an empty list, because Kafka stores no bindings."""
        return []

    def unbind(self, bindings: Sequence[Binding]) -> None:
        """Do nothing, because Kafka stores no bindings."""

    def depth(self, queue: str) -> int:
        for plan in self.topology.queues:
            if queue == plan.name:
                return self._backlog.count_waiting(plan)
            if queue == plan.suspects:
                return self._backlog.count_suspects(plan)
        for plan in self.topology.queues:
            if queue == plan.dead:
                return self.dead_letters(plan).count()
        return self._backlog.count_foreign(queue)

    def is_reachable(self) -> bool:
        return is_any_reachable(self._config.addresses)

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        return self._backlog.read_suspects(plan)

    def read_statuses(self, plans: Sequence[QueuePlan]) -> list[QueueStatus]:
        """Count messages by state; those in hand count as waiting."""
        self._topics.look()
        return [
            dataclasses.replace(status, dead_letters=self.dead_letters(plan).count())
            for plan, status in zip(
                plans, self.read_backlog(plans, DEFAULT_TIMEOUT_SECONDS), strict=True
            )
        ]

    def read_backlog(
        self, plans: Sequence[QueuePlan], timeout: float
    ) -> list[QueueStatus]:
        """Count messages by state, except dead letters, which would all be read."""
        return self._backlog_reader.read(plans, timeout)

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return KafkaDeadLetters(
            plan,
            self._config.consumer(_LOOKING_GROUP),
            self._admin,
            self._topics,
            self._publisher.replay,
            self.settings.dead_letter_ttl,
        )

    def close(self) -> None:
        if producer := self._producer.take():
            producer.close()
        self._filled_partitions.close()
        self._admin.close()

    def abandon_after_fork(self) -> None:
        keep_undestroyed(self)

    def _forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        errors = self._publisher.forward(forwards, self.settings.publish_timeout)
        for forward, error in zip(forwards, errors, strict=True):
            if error is None and forward.lane is Lane.SUSPECTS:
                self._suspect_groups.set_in_use(forward.delivery.link.plan.name)
        return errors

    def _refresh(self, at_once: bool) -> None:
        self._topics.refresh(at_once)
        self._suspect_groups.look_if_due()

    def _on_topics_changed(self, topics: Mapping[str, int]) -> None:
        self._topic_listeners.announce(topics)
        self._suspect_groups.look_now()
        self._declaration.on_topics_changed(topics)


def _create_reader(queue: str, exchange: str, prefix: str) -> MessageReader:
    """Return a function that converts the Kafka records of a queue to messages."""

    def read_message(ready: ReadyRecord) -> Message:
        message = records.read_record(
            ready.record,
            queue,
            redelivered=ready.redelivered,
            exchange=exchange,
            prefix=prefix,
            attempt=ready.attempt,
            deaths=ready.deaths,
        )
        if ready.previous is not None:
            headers = {**message.headers, PREVIOUS_ATTEMPT: ready.previous}
            message.headers = headers
        return message

    return read_message
