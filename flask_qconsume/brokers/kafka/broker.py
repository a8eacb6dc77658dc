"""Kafka as an app's broker: puts the parts together, says what they can do."""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from ...broker.base import Broker
from ...broker.base import DeadLetters
from ...broker.base import QueueStatus
from ...broker.base import SuspectsStatus
from ...broker.checks import check_messages
from ...broker.headers import find_oldest_suspect
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
from ...errors import BrokerUnavailable
from ...errors import TopologyMismatch
from ...errors import UnsupportedByBroker
from ...first_use import PerProcess
from ...message import Message
from ...message import Outgoing
from ...settings import Settings
from . import naming
from . import records
from .capabilities import CAPABILITIES
from .client.admin import KafkaAdmin
from .client.calls import keep_undestroyed
from .client.config import kafka_config
from .client.contents import Contents
from .client.partition import ReadyRecord
from .client.producer import KafkaProducer
from .dead_letters import KafkaDeadLetters
from .group_starts import GroupStarts
from .heads import Heads
from .lag import lag
from .lag import undone
from .link import KafkaLink
from .link import Opener
from .link import create_terms
from .newcomers import TopicListeners
from .publisher import Publisher
from .suspect_groups import SuspectGroups
from .tls_checks import check_files
from .topics import TIMEOUT
from .topics import Topics

#: The group that a reader of dead letters would be in, if it committed anything.
_NOBODY = "_qconsume.dead-letters"


class Kafka(Broker):
    """Groups for queues, topics for routing keys. Opens nothing before it is used."""

    capabilities = CAPABILITIES
    link: t.ClassVar[type[KafkaLink]] = KafkaLink

    def __init__(self, settings: Settings, topology: Topology) -> None:
        super().__init__(settings, topology)
        self._config = kafka_config(
            settings.broker_url, settings.transport_options, 2 * settings.heartbeat
        )
        check_files(self._config)
        self._admin = KafkaAdmin(self._config.admin())
        self._producer = KafkaProducer(self._config.producer(settings.publish_timeout))
        self._newcomers = TopicListeners()
        self._topics = Topics(self._admin, self._config, settings, self._hear)
        self._starts = GroupStarts(
            self._admin,
            self._topics.look,
            self._producer.send,
            at_the_end=self._config.begins_at_the_end,
        )
        self._contents = Contents(self._config.consumer(_NOBODY))
        self._lanes = SuspectGroups(self._partitions, self._contents.of)
        self._publisher = Publisher(self._producer, self._topics, settings.queue_prefix)
        #: Set once this process has declared its topics.
        self._declared_here = PerProcess(threading.Event)
        self._declaring = threading.Lock()

    def names(self) -> Iterator[Name]:
        """The groups; topics are shared on purpose, or begin with what no group has."""
        for plan in self.topology.queues:
            main, suspects, _ = list_names(plan)
            yield main
            yield suspects

    def companion_names(self, plan: QueuePlan) -> tuple[str, str]:
        return naming.suspects(plan.name), naming.dead(plan.name)

    def check_names(self) -> None:
        naming.check_prefix(self.settings.queue_prefix)
        for plan in self.topology.queues:
            naming.check_plan(plan)
        naming.check_alike(self.topology.queues)
        super().check_names()

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        self._declare_once(TIMEOUT)
        group, main = naming.group(plan, lane), lane is Lane.MAIN
        if main:
            self._starts.begin([plan], TIMEOUT)
            self._starts.check(plan, TIMEOUT)
        link = self.link(
            plan,
            lane,
            config=self._config.consumer(group, self.settings.lease),
            topics=naming.subscription(plan, lane),
            terms=create_terms(
                plan,
                lane,
                prefetch,
                delayed=naming.holds_back,
                due=records.due,
                grace=self._config.grace,
            ),
            opened=_opener(group, self.topology.exchange, plan.prefix),
            forwarder=self._forward,
            refresh=self._refresh,
            look=self._topics.look,
            declared=self._declared(plan),
            wanted=None if main else lambda: self._lanes.in_use(plan.name),
        )
        self._newcomers.add(link, self._topics.known)
        if not main:
            self._lanes.add(plan.name, link)
        return link

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        check_messages(messages, self.topology.exchange, self.capabilities)
        planned = self._publisher.composed(messages)
        deadline = time.monotonic() + timeout
        try:
            self._declare_once(timeout)
            left = _left(deadline)
            return self._publisher.publish(messages, planned, left)
        except UnsupportedByBroker:
            raise
        except BrokerError as error:
            return [error] * len(messages)

    def declare(self) -> None:
        self._declare(TIMEOUT)

    def stale_bindings(self) -> list[Binding]:
        """None: what a group reads is said by its members, and only while they live."""
        return []

    def unbind(self, bindings: Sequence[Binding]) -> None:
        """There are none."""

    def depth(self, queue: str) -> int:
        for plan in self.topology.queues:
            if queue in (plan.name, plan.suspects):
                return self._lag(plan, queue)
        for plan in self.topology.queues:
            if queue == plan.dead:
                return self.dead_letters(plan).count()
        return lag(self._admin, queue, self._topics.look(), TIMEOUT, only_known=True)

    def is_reachable(self) -> bool:
        return is_any_reachable(self._config.addresses)

    def read_suspects(self, plan: QueuePlan) -> SuspectsStatus:
        topic = naming.suspects(plan.name)
        read = {topic: self._topics.look().get(topic, 0)}
        waiting = lag(self._admin, plan.suspects, read, TIMEOUT)
        if not waiting:
            return SuspectsStatus(0)
        first = undone(self._admin, plan.suspects, read, TIMEOUT)
        heads = Heads(self._config.consumer(_NOBODY)).at(first)
        messages = (
            records.incoming(r, plan.suspects, redelivered=False) for r in heads
        )
        return SuspectsStatus(waiting, find_oldest_suspect(messages))

    def _read_status(self, plan: QueuePlan) -> QueueStatus:
        """What a worker has in hand is among what waits: no offset tells it."""
        found = self._topics.look()
        wanted = [topic for topic in found if naming.matches(plan, topic)]
        delayed = {name for name in wanted if naming.delays(name)}
        return QueueStatus(
            waiting=self._lag_in(plan.name, set(wanted) - delayed),
            delayed=self._lag_in(plan.name, delayed),
            in_hand=None,
            suspects=self.read_suspects(plan),
            dead_letters=self.dead_letters(plan).count(),
        )

    def dead_letters(self, plan: QueuePlan) -> DeadLetters:
        return KafkaDeadLetters(
            plan,
            self._config.consumer(_NOBODY),
            self._admin,
            self._topics,
            self._publisher.replay,
            self.settings.dead_letter_ttl,
        )

    def close(self) -> None:
        self._producer.close()
        self._contents.close()
        self._admin.close()

    def abandon_after_fork(self) -> None:
        keep_undestroyed(self)

    def _forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        errors = self._publisher.forward(forwards, self.settings.publish_timeout)
        for forward, error in zip(forwards, errors, strict=True):
            if error is None and forward.lane is Lane.SUSPECTS:
                self._lanes.tell(forward.delivery.link.plan.name)
        return errors

    def _refresh(self, at_once: bool) -> None:
        self._topics.refresh(at_once)
        self._lanes.refresh()

    def _hear(self, topics: Mapping[str, int]) -> None:
        self._newcomers.tell(topics)
        self._lanes.look_again()
        if any(self._missing(topics).values()):
            self._declared_here.take()  # What was deleted is declared again.

    def _missing(self, topics: Mapping[str, int]) -> dict[str, list[str]]:
        """The topics that are to be declared and are not there, by their queues."""
        return {
            plan.name: [name for name in self._declared(plan) if name not in topics]
            for plan in self.topology.queues
        }

    def _declared(self, plan: QueuePlan) -> list[str]:
        """The topics that are looked for, or created, before a queue is used."""
        return [] if self.settings.declare == "never" else self._topics.wanted(plan)

    def _partitions(self, topic: str) -> int:
        return self._topics.known.get(topic, 0)

    def _lag(self, plan: QueuePlan, queue: str) -> int:
        found = self._topics.look()
        if queue == plan.suspects:
            wanted = {naming.suspects(plan.name)}
        else:
            wanted = {topic for topic in found if naming.matches(plan, topic)}
        return self._lag_in(queue, wanted)

    def _lag_in(self, group: str, wanted: t.AbstractSet[str]) -> int:
        found = self._topics.known
        read = {topic: number for topic, number in found.items() if topic in wanted}
        return lag(self._admin, group, read, TIMEOUT)

    def _declare_once(self, timeout: float) -> None:
        if self._declared_here.get().is_set():
            return
        began, away_after = time.monotonic(), self.settings.away_after
        deadline = began + timeout
        # One for all who publish first: the others wait for it, each for its own time.
        if not self._declaring.acquire(timeout=timeout):
            raise BrokerUnavailable(
                f"Kafka did not answer within {timeout:g} s to somebody else, who looks"
                " for the topics before anything is published."
            )
        try:
            if not self._declared_here.get().is_set():
                # Nothing tells yet that there is a Kafka at all.
                self._topics.look(_left(min(deadline, began + away_after)))
                self._declare(_left(deadline))
        finally:
            self._declaring.release()

    def _declare(self, timeout: float) -> None:
        for plan in self.topology.queues:
            naming.check_plan(plan)  # kombu's queues come one by one.
        if self.settings.declare != "never":
            deadline = time.monotonic() + timeout
            missing = self._missing(self._topics.look(timeout))
            self._supply(missing, _left(deadline))
            if self._config.begins_at_the_end and self.settings.declare == "auto":
                # What is published from now on is theirs, before any worker runs.
                self._starts.begin(self.topology.queues, _left(deadline))
        self._declared_here.get().set()

    def _supply(self, missing: Mapping[str, Sequence[str]], timeout: float) -> None:
        """Create what is missing, or say that it is."""
        names = {name for each in missing.values() for name in each}
        if not names:
            return
        if self.settings.declare == "auto":
            self._topics.create(names, timeout)
            return
        queue, first = next((q, each[0]) for q, each in missing.items() if each)
        raise TopologyMismatch(
            f"The topic '{first}' of the queue '{queue}' is not there ({len(names)}"
            " such topics are missing), and 'QCONSUME_DECLARE' is 'passive'. Run 'flask"
            " qconsume declare' where it is 'auto'."
        )


def _left(deadline: float) -> float:
    """The seconds that are left, and enough to be told why it failed."""
    return max(deadline - time.monotonic(), 0.1)


def _opener(queue: str, exchange: str, prefix: str) -> Opener:
    """Makes messages of a queue's arrivals."""

    def opened(arrival: ReadyRecord) -> Message:
        _, _, record, redelivered, attempt, deaths = arrival
        return records.incoming(
            record,
            queue,
            redelivered=redelivered,
            exchange=exchange,
            prefix=prefix,
            attempt=attempt,
            deaths=deaths,
        )

    return opened
