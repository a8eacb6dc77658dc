"""The native thread that owns a consumer's client; it fetches and commits in a loop.

It exchanges data with gevent's thread by a :class:`~.shared_state.SharedState`, without
locks.
"""

from __future__ import annotations

import contextlib
import logging
import time
import typing as t
from collections.abc import Mapping
from itertools import chain

from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition

from ....first_use import delay_forks
from ....native_threads import get_unpatched
from .assignment import Assignment
from .calls import FIRST_LOOKUPS_SECONDS
from .client_classes import Consumer
from .commits import OffsetCommits
from .errors import describe_trouble
from .errors import ends_client
from .flow_control import FlowControl
from .membership import Membership
from .outage import Outage
from .partition import AssignedPartition
from .partition import ReadyRecord
from .positions import SETTINGS
from .positions import Positions
from .shared_state import ClientLogger
from .shared_state import SharedState
from .terms import ConsumerTerms
from .topic_refresh import TopicRefresh

#: Seconds of one poll for records. While records are being handled it is short, because
#: records that are settled meanwhile wait for its end. Otherwise it grows from the
#: second to the third value; a stop waits for its end, and a new record ends it.
_BUSY_POLL_SECONDS = 0.005
_IDLE_POLL_SECONDS = 0.05
_MAX_POLL_SECONDS = 1.0
#: Seconds without work after which partitions are not checked in each round.
_REST_AFTER_SECONDS = 1.0
#: Number of records that are fetched ahead, and in one call.
_FETCH_AHEAD = 1_000
_MAX_FETCH = 1_000
#: Number of different errors that are logged, each once.
_MAX_LOGGED_ERRORS = 100
#: librdkafka's default for 'session.timeout.ms'.
_SESSION_TIMEOUT_MS = 45_000


class ConsumerThread:
    """The native thread that consumes topics, until it is stopped or fails.

    :param config: librdkafka's settings, the group's id among them.
    :param topics: Topics, and patterns that begin with ``^``.
    """

    def __init__(
        self,
        config: Mapping[str, t.Any],
        topics: list[str],
        terms: ConsumerTerms,
        shared: SharedState,
    ) -> None:
        session = float(config.get("session.timeout.ms", _SESSION_TIMEOUT_MS))
        self.outage = Outage(session / 1_000)
        self.topic_refresh = TopicRefresh(lambda s: self._list_topics(s).topics)
        self._config = config
        self._topics = topics
        self._shared = shared
        self._flow = FlowControl()
        self._positions = Positions(
            str(config.get("partition.assignment.strategy", "")), shared.log
        )
        self._commits = OffsetCommits(terms, shared)
        self._assignment = Assignment(terms, shared, self._commits)
        self._membership = Membership(
            terms,
            shared,
            self._assignment,
            self._commits,
            self._positions,
            self.outage,
        )
        #: Seconds for which there has been no work.
        self._resting = 0.0
        self._logged_errors: set[str] = set()

    @property
    def buffered_count(self) -> int:
        """Number of fetched records that are not chosen for handing out."""
        return sum(len(partition.buffer) for partition in self._partitions())

    @property
    def marked(self) -> list[ReadyRecord]:
        """Records that are handed out after the next commit."""
        waiting = [partition.awaiting_commit for partition in self._partitions()]
        return [*chain(*waiting), *self._commits.unanswered]

    def run(self) -> None:
        """Consume until the consumer is closed, or an error ends it."""
        shared = self._shared
        delay_forks(FIRST_LOOKUPS_SECONDS)
        try:
            self._consumer = Consumer(self._client_config())
        except Exception as error:
            shared.fail(error)
            return
        try:
            self._membership.join(self._consumer, self._topics)
            while not shared.is_stopping and shared.error is None:
                self._run_round()
            self._membership.commit_final(self._consumer, self._on_record)
            self._membership.leave(self._consumer)
        except Exception as error:
            shared.fail(error)
        finally:
            # This may take long if the broker does not answer; no greenlet waits.
            with contextlib.suppress(Exception):
                self._consumer.close()

    def _client_config(self) -> dict[str, t.Any]:
        return {
            **self._config,
            **SETTINGS,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "logger": ClientLogger(self._shared.log_lines),
            "on_commit": self._on_commit,
            "error_cb": self._on_error,
        }

    def _run_round(self) -> None:
        shared, assignment = self._shared, self._assignment
        shared.last_seen = time.monotonic()
        has_requests = shared.settled or shared.notes or shared.released
        if has_requests or assignment.has_news:
            self._resting, assignment.has_news = 0.0, False
        partitions = self._partitions()
        if self._resting < _REST_AFTER_SECONDS:
            self._mark_and_commit(partitions)
        self._fetch(partitions)
        lost = self._positions.recover_lost(self._consumer, assignment.partitions)
        for partition in lost:
            assignment.reset(partition)
        if self.outage.check(self._list_topics):
            shared.log(logging.WARNING, _describe_outage(self.outage))
        if not self.outage.is_possible:
            self.topic_refresh.look_if_due()

    def _mark_and_commit(self, partitions: list[AssignedPartition]) -> None:
        self._assignment.apply_requests()
        is_paused = self._shared.is_paused
        if not is_paused:
            self._assignment.mark(partitions)
        self._commits.send(self._consumer, partitions)
        ahead = _FETCH_AHEAD + self._commits.room
        self._flow.update(self._consumer, partitions, ahead, is_paused)

    def _fetch(self, partitions: list[AssignedPartition]) -> None:
        room = self._flow.room
        if room <= 0:
            # Poll nevertheless, so that the client's callbacks are called.
            get_unpatched("time", "sleep")(_BUSY_POLL_SECONDS)
        timeout = self._poll_timeout(partitions)
        first = self._consumer.poll(timeout if room > 0 else 0)
        if first is None:
            self._resting += timeout
            return
        self._resting = 0.0
        self._on_record(first)
        if room > 1:
            for record in self._consumer.consume(min(room - 1, _MAX_FETCH), 0):
                self._on_record(record)

    def _poll_timeout(self, partitions: list[AssignedPartition]) -> float:
        """Return the seconds of the next poll, which are more without work."""
        if self._resting < _REST_AFTER_SECONDS:
            if self._commits.is_pending or any(
                partition.unsettled for partition in partitions
            ):
                self._resting = 0.0
                return _BUSY_POLL_SECONDS
            # A record that is held back may become due, or a change must be committed.
            if any(
                partition.buffer or partition.is_uncommitted for partition in partitions
            ):
                self._resting = 0.0
                return _IDLE_POLL_SECONDS
        return min(_MAX_POLL_SECONDS, max(_IDLE_POLL_SECONDS, self._resting / 10))

    def _partitions(self) -> list[AssignedPartition]:
        return list(self._assignment.partitions.values())

    def _list_topics(self, timeout: float) -> t.Any:
        return self._consumer.list_topics(timeout=timeout)

    def _on_record(self, record: t.Any) -> None:
        error = record.error()
        partition_id = record.topic(), record.partition()
        if error is not None:
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._positions.add_lost(partition_id)
            else:
                self._on_error(error)
            return
        partition = self._assignment.partitions.get(partition_id)
        if partition is None:
            return
        if record.offset() < partition.offsets.position:
            # The topic was created again, or lost its end: offsets mean other records.
            partition = self._assignment.reset(partition_id)
        partition.add_fetched(record)

    def _on_commit(
        self, error: KafkaError | None, partitions: list[TopicPartition]
    ) -> None:
        for failed in self._commits.on_answer(error, partitions):
            self._on_error(failed)

    def _on_error(self, error: KafkaError) -> None:
        if ends_client(error):
            self._shared.fail(error)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.outage.begin()
        else:
            self._log_once(error)

    def _log_once(self, error: KafkaError) -> None:
        unknown_topic = error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        self._shared.misses_topic = self._shared.misses_topic or unknown_topic
        key = error.str() if unknown_topic else error.name()
        logged = self._logged_errors
        if key not in logged and len(logged) < _MAX_LOGGED_ERRORS:
            logged.add(key)
            self._shared.log(logging.WARNING, describe_trouble(error))


def _describe_outage(outage: Outage) -> str:
    if outage.is_confirmed:
        return (
            "Kafka does not answer. What is in hand stays in hand, and the group keeps"
            " our place, until the session is over ('QCONSUME_LEASE')."
        )
    return "Kafka answers again."
