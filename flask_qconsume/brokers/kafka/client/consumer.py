"""The greenlets' side of a Kafka consumer: hands out records, and settles them.

A :class:`~.consumer_thread.ConsumerThread` makes all calls of the client that block.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import chain
from typing import Any

from ....errors import BrokerError
from ....errors import BrokerUnavailable
from ....logs import get_logger
from ....native_threads import NativeThread
from ....native_threads import ThreadNotifier
from ....text import escape
from .consumer_thread import ConsumerThread
from .membership import ANSWER_TIMEOUT_SECONDS
from .offsets import RecordNote
from .ordering import create_queue
from .partition import ReadyRecord
from .shared_state import SharedState
from .terms import ConsumerTerms

logger = get_logger("flask_qconsume.brokers.kafka")

#: Seconds between two checks whether records are committed.
_COMMIT_LOOK_SECONDS = 0.005
#: Seconds after which a native thread without a sign of life counts as hung.
_HANG_SECONDS = 60.0


class KafkaConsumer:
    """A member of a consumer group, as the thread with the greenlets uses it.

    Before :meth:`start` it has no client, and hands out no records.

    :param config: librdkafka's settings, the group's id among them.
    :param topics: Topics, and patterns that begin with ``^``.
    """

    def __init__(
        self, config: Mapping[str, Any], topics: Sequence[str], terms: ConsumerTerms
    ) -> None:
        self._record_queue = create_queue(terms.ordering)
        #: Seconds that a leaving member may have to wait for other members.
        self._leave_timeout = terms.grace
        #: After :meth:`close`: records that were not handed out, although a commit
        #: may note them as in flight.
        self.unused: list[ReadyRecord] = []
        self._notifier = ThreadNotifier()
        self._shared = SharedState(self._notifier)
        self._consumer_thread = ConsumerThread(
            config, list(topics), terms, self._shared
        )
        self._native_thread = NativeThread(self._consumer_thread.run, "kafka")
        self.is_started = False

    @property
    def stale_count(self) -> int:
        """Number of records that were settled after their partition was lost."""
        return self._shared.stale_count

    @property
    def buffered_count(self) -> int:
        """Number of fetched records that are not chosen for handing out."""
        return self._consumer_thread.buffered_count

    @property
    def is_away(self) -> bool:
        """True if Kafka does not answer at the moment."""
        return self._consumer_thread.outage.is_confirmed

    def pop_misses_topic(self) -> bool:
        """Return whether Kafka has reported a missing topic since the last call."""
        misses_topic, self._shared.misses_topic = self._shared.misses_topic, False
        return misses_topic

    def start(self, timeout: float = 2 * ANSWER_TIMEOUT_SECONDS) -> None:
        """Connect and subscribe, unless the consumer is closed.

        :raises BrokerError: if the broker does not answer, or refuses.
        """
        shared = self._shared
        if shared.is_stopping:
            return
        self.is_started = True
        shared.last_seen = time.monotonic()
        self._native_thread.start()
        deadline = time.monotonic() + timeout
        try:
            while not (shared.is_subscribed or shared.is_stopping):
                self._raise_error()
                seconds_left = deadline - time.monotonic()
                if seconds_left <= 0:
                    raise BrokerUnavailable("Kafka's client does not begin.")
                self._notifier.wait(seconds_left)
        except BrokerError:
            self.close(0)
            raise

    def take(self, room: int) -> list[ReadyRecord]:
        """Return up to ``room`` records to be handled, without waiting.

        :raises BrokerError: if an error ended the consumer.
        """
        self._raise_error()
        shared = self._shared
        if shared.log_lines:
            self._write_log()
        while shared.gone:
            self._record_queue.drop(shared.gone.popleft())
        while shared.ready:
            self._record_queue.add(shared.ready.popleft())
        return self._record_queue.take(room, time.monotonic())

    def wait(self, timeout: float) -> None:
        """Wait until there may be records to take; other greenlets run."""
        due = self._record_queue.next_due()
        if due is not None:
            timeout = min(timeout, due - time.monotonic())
        if timeout > 0:
            self._notifier.wait(timeout)

    def exceed_prefetch(self, more: int) -> None:
        """Allow ``more`` unsettled records beyond the prefetch."""
        self._shared.extra_room = more

    def await_joined(self, timeout: float) -> None:
        """Wait until the group has assigned partitions, or none, to this consumer."""
        deadline = time.monotonic() + timeout
        while (
            not self._shared.has_joined
            and (seconds_left := deadline - time.monotonic()) > 0
        ):
            self._raise_error()
            self._notifier.wait(seconds_left)

    def wake(self) -> None:
        self._notifier.notify()

    def refresh_topics(self, topics: Mapping[str, int]) -> None:
        """Make the client list topics until it knows these topics' partitions."""
        self._consumer_thread.topic_refresh.request(topics)

    def settle(self, records: Sequence[ReadyRecord]) -> None:
        """Mark records as done, for the next commit."""
        self._shared.settled.append(records)
        if self._record_queue.settle(records):
            self._notifier.notify()

    def await_committed(self, records: Sequence[ReadyRecord], timeout: float) -> bool:
        """Wait until Kafka has committed these records as done."""
        deadline = time.monotonic() + timeout
        while not all(
            record.partition.has_committed(record.offset) for record in records
        ):
            if time.monotonic() > deadline or not self._native_thread.alive:
                return False
            time.sleep(_COMMIT_LOOK_SECONDS)
        return True

    def postpone(
        self,
        record: ReadyRecord,
        attempt: int,
        delay: float,
        previous: str | None = None,
    ) -> None:
        """Hand a record out again after a delay, before the records behind it.

        The next commit stores the attempt's number. The previous attempt's span is
        known in this process only.
        """
        again = record._replace(
            redelivered=False, attempt=attempt, deaths=0, previous=previous
        )
        self._shared.notes.append((record, RecordNote(attempt)))
        if self._shared.is_paused:
            self._shared.released.append([record])
        self._record_queue.postpone(again, time.monotonic() + delay)
        self._notifier.notify()

    def put_back(self, records: Iterable[ReadyRecord]) -> None:
        """Give back records that no handler has started."""
        released = list(records)
        for record in released:
            record.partition.handed_count -= 1
        self._shared.released.append(released)

    def pause(self) -> None:
        """Hand out no more records."""
        self._shared.is_paused = True
        while self._shared.ready:
            self._record_queue.add(self._shared.ready.popleft())
        self._shared.released.append(self._record_queue.clear())
        self._notifier.notify()

    def check(self) -> None:
        """Check that the native thread is alive and has not failed.

        :raises BrokerError: if it hangs, or an error ended it.
        """
        self._raise_error()
        if not self.is_started:
            return
        if time.monotonic() - self._shared.last_seen > _HANG_SECONDS:
            raise BrokerUnavailable(f"Kafka's client has hung for {_HANG_SECONDS:g} s.")

    def close(self, timeout: float) -> bool:
        """Commit, give back unsettled records, and leave the consumer group.

        After an error, nothing is committed: the next owner of a partition treats the
        records as after the death of a process.

        :returns: Whether the native thread ended in time; if not, it continues in the
            background.
        """
        shared = self._shared
        self.unused = [
            *self._record_queue.clear(),
            *chain(*shared.ready),
            *self._consumer_thread.marked,
        ]
        shared.is_stopping = True
        self._notifier.notify()
        done = not self._native_thread.alive or self._native_thread.join(timeout)
        if not done and shared.is_leaving:
            done = self._native_thread.join(self._leave_timeout)
        self._write_log()
        self._notifier.close()
        return done

    def _raise_error(self) -> None:
        if self._shared.error is not None:
            raise self._shared.error
        ended = self.is_started and not self._native_thread.alive
        if ended and not self._shared.is_stopping:
            raise BrokerError(
                f"Kafka's client has ended: {self._native_thread.error!r}"
            )

    def _write_log(self) -> None:
        """Log the lines that the native thread has left, which must not log itself."""
        while self._shared.log_lines:
            level, text = self._shared.log_lines.popleft()
            logger.log(level, "%s", escape(text))
