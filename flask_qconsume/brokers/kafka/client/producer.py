"""The Kafka producer of a process; callers wait cooperatively.

A native thread polls the client for delivery reports; the client's own threads do the
rest. A record counts as sent when all replicas in sync have it.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaError
from confluent_kafka import KafkaException

from ....errors import BrokerError
from ....errors import PublishRefused
from ....errors import PublishTimeout
from ....errors import TopologyMismatch
from ....errors import Unroutable
from ....logs import get_logger
from ....native_threads import NativeThread
from ....native_threads import get_hub_id
from .calls import ClientErrors
from .calls import create_client
from .calls import destroy_within
from .client_classes import Producer
from .delivery_reports import PendingReports
from .delivery_reports import ReportListener
from .delivery_reports import create_timeout_error
from .errors import translate_error

logger = get_logger("flask_qconsume.brokers.kafka")

#: Errors of records that were waiting when a fatal error ended the client.
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
_UNKNOWN_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)

#: Seconds that the native thread waits for reports.
_POLL_SECONDS = 0.1
#: Seconds between two attempts while the client's own queue is full.
_FULL_PAUSE_SECONDS = 0.01
#: Seconds that a close waits for the native thread, and then for the client's threads.
_CLOSE_TIMEOUT_SECONDS = 2.0


class ProducerRecord(t.NamedTuple):
    """A record to be sent to a topic, with its key and its headers."""

    topic: str
    #: ``None`` makes it a tombstone.
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    #: -1: chosen by the key, or at random without one.
    partition: int = -1
    #: Milliseconds since 1970; 0 is now.
    timestamp: int = 0


class ClientFailed(BrokerError):
    """The Kafka client had a fatal error; the next publish creates a new one."""


class UnconfirmedFor:
    """Measures for how long no confirmation has come for the records that were sent.

    :param limit: Seconds before which :meth:`is_too_long` is never true.
    :param clock: Returns seconds, like :func:`time.monotonic`.
    """

    def __init__(
        self, limit: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._since: float | None = None

    def note_sent(self) -> None:
        """Start the measurement, unless it runs; call this before sending."""
        if self._since is None:
            self._since = self._clock()

    def reset(self) -> None:
        """End the measurement, after a confirmation or with a new client."""
        self._since = None

    def is_too_long(self, timeout: float) -> bool:
        """Return whether the wait is longer than the limit and twice ``timeout``.

        :param timeout: Seconds that a send may take.
        """
        since = self._since
        if since is None:
            return False
        return self._clock() - since >= max(self._limit, 2 * timeout)


class KafkaProducer:
    """Sends records for any greenlet or thread; its client is created on first use.

    It belongs to one process: a forked child must create another one.

    :param config: librdkafka's settings.
    :param max_unconfirmed: Seconds without any confirmation (but at least two timeouts
        of a send) after which the client is replaced: after an outage, a client may
        never send again. https://github.com/confluentinc/librdkafka/issues/3009
    """

    def __init__(
        self, config: Mapping[str, t.Any], max_unconfirmed: float = 15.0
    ) -> None:
        self._config = config
        self._unconfirmed = UnconfirmedFor(max_unconfirmed)
        self._lock = threading.Lock()
        self._client: Producer | None = None
        self._client_errors = ClientErrors()
        self._thread: NativeThread | None = None
        #: Listeners by the id of gevent's hub.
        self._listeners: dict[int, ReportListener] = {}
        self._home_hub = 0

    def send(
        self, records: Sequence[ProducerRecord], timeout: float
    ) -> list[Exception | None]:
        """Send records, then wait for the confirmations of all of them.

        :param timeout: Seconds for all records together.
        :returns: ``None`` or the error for each record.
        :raises BrokerRefused: if the broker refuses the login.
        :raises ConfigurationError: for settings that librdkafka refuses.
        """
        deadline = time.monotonic() + timeout
        client = self._get_client()
        hub_id = get_hub_id()
        listener = self._listeners.get(hub_id) or self._listeners.setdefault(
            hub_id, ReportListener()
        )
        try:
            reports = PendingReports(len(records), listener)
            self._unconfirmed.note_sent()
            if not listener.is_idle:
                # Let other greenlets produce first: a batch takes less time.
                time.sleep(0)
            for index, record in enumerate(records):
                self._produce(client, reports, index, record, deadline)
            reports.wait(deadline)
        finally:
            self._close_if_foreign(hub_id, listener)
        errors = reports.errors
        if any(errors):
            self._handle_errors(client, errors, timeout)
        return errors

    def close(self) -> None:
        with self._lock:
            opened: list[t.Any] = [self._thread, self._client]
            self._client = self._thread = None
            listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.close()
        if opened[0] is not None:
            opened[0].join(_CLOSE_TIMEOUT_SECONDS)
            # No other name may refer to the client here: this thread would destroy it.
            destroy_within(_CLOSE_TIMEOUT_SECONDS, opened.clear)

    def _get_client(self) -> Producer:
        with self._lock:
            if self._client is None:
                config = {**self._config, "error_cb": self._client_errors}
                self._client = create_client(Producer, config)
                self._unconfirmed.reset()
                serve = partial(self._serve_reports, self._client)
                self._thread = NativeThread(serve, "kafka-producer").start()
                self._home_hub = get_hub_id()
            return self._client

    def _serve_reports(self, client: Producer) -> None:
        """Poll the Kafka client for delivery reports, in a native thread."""
        while self._client is client:
            try:
                client.poll(_POLL_SECONDS)
            except KafkaException as error:
                # A fatal error is raised first, then reported for each record.
                self._client_errors(error.args[0])
        # A caller may still wait for a report.
        client.flush(_CLOSE_TIMEOUT_SECONDS / 2)

    def _close_if_foreign(self, hub_id: int, listener: ReportListener) -> None:
        """Close an unused listener that belongs to another event loop."""
        if (
            hub_id != self._home_hub
            and listener.is_idle
            and self._listeners.pop(hub_id, None) is listener
        ):
            listener.close()

    def _handle_errors(
        self, client: Producer, errors: Sequence[Exception | None], timeout: float
    ) -> None:
        """Drop a client that has failed; raise the refusal that it has reported."""
        if any(isinstance(error, ClientFailed) for error in errors):
            self._drop_client(client)
            self._client_errors.check()
        if any(isinstance(error, PublishTimeout) for error in errors):
            self._client_errors.check()
            if self._unconfirmed.is_too_long(timeout) and self._drop_client(client):
                logger.warning(
                    "Kafka's client has stopped confirming records: the next publish"
                    " creates another client"
                )

    def _produce(
        self,
        client: Producer,
        reports: PendingReports,
        index: int,
        record: ProducerRecord,
        deadline: float,
    ) -> None:
        """Pass a record to the client; wait while the client's queue is full."""
        report = partial(self._report, reports, index)
        topic, value, key, headers, partition, timestamp = record
        while True:
            try:
                client.produce(
                    topic,
                    value,
                    key,
                    partition,
                    report,
                    timestamp=timestamp,
                    headers=list(headers),
                )
                return
            except BufferError:
                if time.monotonic() > deadline:
                    reports.fail(index, create_timeout_error())
                    return
                time.sleep(_FULL_PAUSE_SECONDS)
            except KafkaException as error:
                reports.fail(index, _translate(error.args[0]))
                return

    def _drop_client(self, client: Producer) -> bool:
        """Drop the client; return false if another caller has dropped it."""
        with self._lock:
            ours = self._client is client
            if ours:
                self._client = self._thread = None
            return ours

    def _report(
        self, reports: PendingReports, index: int, error: t.Any, record: t.Any
    ) -> None:
        """Store a delivery report; the client calls this in the native thread."""
        if error is None:
            self._unconfirmed.reset()
        reports.report(index, None if error is None else _translate(error))


def _translate(error: t.Any) -> BrokerError:
    code = error.code()
    text = error.str()
    if error.fatal() or code in _PURGED:
        return ClientFailed(
            f"Kafka's client gave up: {text}. The next publish creates another."
        )
    if code in _UNKNOWN_TOPIC:
        return Unroutable(f"There is no such topic: {text}")
    if code == KafkaError._MSG_TIMED_OUT:
        return create_timeout_error()
    translated = translate_error(error)
    # Kafka reports violations by topics and by records with the same error.
    return (
        PublishRefused(str(translated))
        if type(translated) is TopologyMismatch
        else translated
    )
