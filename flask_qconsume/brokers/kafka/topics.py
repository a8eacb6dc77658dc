"""The topics of an app: which exist, which must exist, and how they are created."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

from ...background_thread import BackgroundThread
from ...broker.topology import QueuePlan
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...errors import TopologyMismatch
from ...settings import Settings
from . import naming
from . import tls_checks
from .client.admin import KafkaAdmin
from .client.admin import NewTopic
from .client.config import KafkaConfig
from .link import KafkaLink

#: Seconds that the broker has to answer, unless the caller says otherwise.
DEFAULT_TIMEOUT_SECONDS = 10.0
#: Seconds of the very first request, after which TLS is checked.
_FIRST_ATTEMPT_SECONDS = 2.0
#: Seconds for which a listed topic is assumed to exist.
_MAX_AGE_SECONDS = 60.0
#: Seconds between two lists of topics in the background: at least, and as a multiple of
#: the seconds that a list took, because a list of many topics needs processor time.
_LOOK_INTERVAL_SECONDS = 8.0
_LOOK_INTERVAL_FACTOR = 20
#: Seconds between two checks whether a new topic has leaders.
_CREATED_LOOK_SECONDS = 0.05
#: Maximum bytes of a record in our own topics: any record and the headers of a copy.
_MIN_OWN_MESSAGE_BYTES = 8 * 1024 * 1024
#: Kafka's default for 'max.message.bytes'.
_DEFAULT_MESSAGE_BYTES = 1_048_588


class Topics:
    """The list of a Kafka cluster's topics, kept up to date; creates topics.

    :param on_change: Called whenever the list has changed, with the number of
        partitions of each topic.
    """

    def __init__(
        self,
        admin: KafkaAdmin,
        config: KafkaConfig,
        settings: Settings,
        on_change: Callable[[Mapping[str, int]], None] = lambda topics: None,
    ) -> None:
        self._admin = admin
        self._config = config
        self._settings = settings
        self._on_change = on_change
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._partition_counts: Mapping[str, int] = {}
        self._listed_at = float("-inf")
        self._listing_seconds = 0.0

    @property
    def known(self) -> Mapping[str, int]:
        """The number of partitions of each topic, by the last list of topics."""
        return self._partition_counts

    def count_partitions(
        self, topic: str, timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> int:
        partition_count = self._partition_counts.get(topic, 0)
        if not partition_count or time.monotonic() - self._listed_at > _MAX_AGE_SECONDS:
            partition_count = self._look_once(timeout).get(topic, 0)
        return partition_count

    def look(self, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> Mapping[str, int]:
        """Ask Kafka for all topics; return each topic's number of partitions."""
        began = time.monotonic()
        partition_counts = self._ask(timeout)
        with self._lock:
            has_changed = partition_counts != self._partition_counts
            self._partition_counts, self._listed_at = partition_counts, time.monotonic()
            self._listing_seconds = self._listed_at - began
        if has_changed:
            self._on_change(partition_counts)
        return partition_counts

    def list_recent(self, timeout: float) -> Mapping[str, int]:
        """Return the last list of topics, unless it is a minute old."""
        recent = time.monotonic() - self._listed_at <= _MAX_AGE_SECONDS
        return self._partition_counts if recent else self.look(timeout)

    def refresh(self, at_once: bool = False) -> None:
        """List the topics in a background thread, if the last list is old.

        :param at_once: Whether to list the topics in any case.
        """
        age = time.monotonic() - self._listed_at
        due = at_once or age >= look_interval(self._listing_seconds)
        if due and not self._looking.locked():
            BackgroundThread(self._refresh).start()

    def forget(self) -> None:
        """Treat the last list of topics as old, so that the next check asks Kafka."""
        self._listed_at = float("-inf")

    def ensure(
        self, names: Iterable[str], timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        """Create topics that are missing, if the app may create topics.

        :raises TopologyMismatch: if a topic is missing and the setting is not 'auto'.
        """
        missing = [
            name for name in set(names) if not self.count_partitions(name, timeout)
        ]
        if not missing:
            return
        if self._settings.declare != "auto":
            raise TopologyMismatch(
                f"There is no topic '{min(missing)}' ({len(missing)} are missing),"
                f" and 'QCONSUME_DECLARE' is '{self._settings.declare}'. Run 'flask"
                " qconsume declare' where it is 'auto'."
            )
        self.create(missing, timeout)

    def create(
        self, names: Iterable[str], timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        """Create topics, and wait until Kafka's list of topics contains them."""
        topic_names = sorted(set(names))
        deadline = time.monotonic() + timeout
        self._admin.create([self._new_topic(name) for name in topic_names], timeout)
        while not all(name in self._partition_counts for name in topic_names):
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                raise BrokerError(
                    f"Kafka does not show the topics it created: {topic_names}"
                )
            partition_counts = self.look(seconds_left)
            if not all(partition_counts.get(name) for name in topic_names):
                time.sleep(_CREATED_LOOK_SECONDS)

    def list_required(self, plan: QueuePlan) -> list[str]:
        """Return the topics that must exist before a queue is used.

        For a :class:`kombu.Queue` of the app, these are our own topics only, without
        the topics of its routing keys.
        """
        # With an ordering, retries stay in their partition.
        delays = plan.delays if plan.ordering == "none" else ()
        steps = {0, *map(naming.step_for, delays)}
        return [
            *([] if plan.given is not None else naming.literal_topics(plan)),
            *(naming.retry_topic(plan.name, step) for step in sorted(steps)),
            naming.suspects_topic(plan.name),
            naming.dead_letter_topic(plan.name),
        ]

    def retry_topic(self, queue: str, delay: float) -> str:
        """Return a topic for a queue's retries with at least this delay.

        An existing topic for up to four times the delay is preferred to a new topic,
        although its records may be late by a few times their own delay.
        """
        best = naming.step_for(delay)
        longer = [step for step in naming.DELAY_STEPS_SECONDS if step >= best]
        if self._settings.declare == "auto":
            longer = [step for step in longer if step <= 4 * best]
        for step in longer:
            if naming.retry_topic(queue, step) in self._partition_counts:
                return naming.retry_topic(queue, step)
        if self._settings.declare != "auto":
            return self._longest_retry_topic(queue, best)
        return naming.retry_topic(queue, best)

    def _look_once(self, timeout: float) -> Mapping[str, int]:
        """List the topics; several callers at the same time share one list."""
        began = time.monotonic()
        if not self._looking.acquire(timeout=timeout):
            raise BrokerUnavailable(f"Kafka did not answer within {timeout:g} s.")
        try:
            if self._listed_at > began:  # Another caller has looked meanwhile.
                return self._partition_counts
            return self.look(max(timeout - (time.monotonic() - began), 0.1))
        finally:
            self._looking.release()

    def _ask(self, timeout: float) -> Mapping[str, int]:
        """List all topics; check TLS if the first request gets no answer."""
        if self._listed_at > float("-inf"):
            return self._admin.list_topics(timeout)
        began = time.monotonic()
        try:
            return self._admin.list_topics(min(timeout, _FIRST_ATTEMPT_SECONDS))
        except BrokerError as error:
            tls_checks.raise_tls_problem(self._config, error)
            seconds_left = timeout - (time.monotonic() - began)
            if seconds_left <= 0 or not isinstance(error, BrokerUnavailable):
                raise
            return self._admin.list_topics(seconds_left)

    def _refresh(self) -> None:
        with contextlib.suppress(BrokerError):  # Callers that need a topic get it.
            self._look_once(DEFAULT_TIMEOUT_SECONDS)

    def _longest_retry_topic(self, queue: str, best: int) -> str:
        """Return the existing topic for a queue's longest delay.

        Apps that may not create topics use it for all longer delays. A record is handed
        out only when it is due.
        """
        for step in reversed(naming.DELAY_STEPS_SECONDS):
            if naming.retry_topic(queue, step) in self._partition_counts:
                return naming.retry_topic(queue, step)
        return naming.retry_topic(queue, best)

    def _new_topic(self, name: str) -> NewTopic:
        config = self._config
        settings, partitions = config.topic, config.partitions
        if name.startswith(naming.PREFIX):
            # Retries, suspects and dead letters are few: one partition is enough.
            settings, partitions = settings | self._own_settings(name), 1
        # The option 'topics' has names with or without the app's prefix.
        bare = name.removeprefix(self._settings.queue_prefix)
        return NewTopic(
            name,
            config.topics.get(bare, config.topics.get(name, partitions)),
            config.replication_factor,
            settings,
        )

    def _own_settings(self, name: str) -> dict[str, str]:
        """Return settings for our own topics, which must keep records for long."""
        retention_ms = round(self._settings.dead_letter_ttl * 1_000)
        usual = int(self._config.topic.get("max.message.bytes", _DEFAULT_MESSAGE_BYTES))
        # A copy is larger than its original.
        size = {"max.message.bytes": str(max(2 * usual, _MIN_OWN_MESSAGE_BYTES))}
        if name.endswith(".dead"):
            kind = {
                "cleanup.policy": "compact,delete",
                "retention.ms": str(retention_ms),
            }
            return size | kind
        # A retry must outlive the longest delay and some weeks without any worker.
        longest = round(4 * naming.MAX_DELAY_SECONDS * 1_000)
        return size | {"cleanup.policy": "delete", "retention.ms": str(longest)}


class TopicListeners:
    """Tells links when topics were created or deleted."""

    def __init__(self) -> None:
        #: The topics that each link knows of, and how many partitions each has.
        self._known_topics: dict[KafkaLink, Mapping[str, int]] = {}

    def add(self, link: KafkaLink, known_topics: Mapping[str, int]) -> None:
        """Tell a link all known topics now, and changes from now on.

        The first list of the link's client may lack a topic that was only just created.
        """
        self._known_topics[link] = known_topics
        _refresh_topics(link, known_topics)

    def announce(self, topics: Mapping[str, int]) -> None:
        """Tell all links which topics exist now."""
        for link, known_topics in list(self._known_topics.items()):
            if link.closed:
                self._known_topics.pop(link, None)
                continue
            self._known_topics[link] = topics
            link.set_missing(_deleted(link, known_topics, topics))
            new_topics = {
                name: n for name, n in topics.items() if known_topics.get(name) != n
            }
            _refresh_topics(link, new_topics)


def look_interval(took: float) -> float:
    """Return the seconds between two lists of topics; the last took ``took`` s.

    >>> look_interval(0.01), look_interval(1.0), look_interval(5.0)
    (8.0, 20.0, 60.0)
    """
    interval = max(_LOOK_INTERVAL_SECONDS, _LOOK_INTERVAL_FACTOR * took)
    return min(interval, _MAX_AGE_SECONDS)


def _deleted(
    link: KafkaLink, before: Mapping[str, int], now: Mapping[str, int]
) -> set[str]:
    """Return the deleted topics among those that a link reads by their exact names."""
    named = naming.subscription(link.plan, link.lane)
    known = {name for name in named if name in before} | link.missing
    return {name for name in known if name not in now}


def _refresh_topics(link: KafkaLink, topics: Mapping[str, int]) -> None:
    reads = naming.topic_filter(link.plan, link.lane)
    topics_read = {name: number for name, number in topics.items() if reads(name)}
    if topics_read:
        link.refresh_topics(topics_read)
