"""One producer of Kafka's for a process: whoever sends waits cooperatively.

A native thread serves the client's reports on what was delivered; the client's own
threads do the rest. A record counts as sent when all replicas in sync have it.
"""

from __future__ import annotations

import os
import threading
import time
import typing as t
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import Producer

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
from .calls import keep_undestroyed
from .delivery_reports import PendingReports
from .delivery_reports import ReportListener
from .delivery_reports import late
from .errors import translate_error
from .silence import UnconfirmedFor

logger = get_logger("flask_qconsume.transports.kafka")

#: What becomes of records that wait when an error ends the client.
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
#: Seconds that the native thread waits for reports before it looks about.
_POLL = 0.1
#: Seconds between two looks for room where the client's own queue is full.
_FULL = 0.01
#: Seconds that a close waits for the native thread.
_GRACE = 2.0

_UNKNOWN_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


class ProducerRecord(t.NamedTuple):
    """A record on its way to a topic."""

    topic: str
    #: ``None`` makes it a tombstone.
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    #: -1: by the key, or any.
    partition: int = -1
    #: Milliseconds since 1970; 0 is now.
    timestamp: int = 0


class KafkaProducer:
    """Sends records, from any greenlet or thread. Opens nothing before it is used.

    After a fork, the child has a client of its own.

    :param config: librdkafka's settings.
    :param patience: Seconds (and twice the time of a send) for which nothing is
        confirmed of what is sent, after which the client is made anew: one that went
        through an outage may send nothing any more,
        https://github.com/confluentinc/librdkafka/issues/3009
    """

    def __init__(self, config: Mapping[str, t.Any], patience: float = 15.0) -> None:
        self._config = config
        self._silence = UnconfirmedFor(patience)
        self._lock = threading.Lock()
        self._client: Producer | None = None
        self._complaints = ClientErrors()
        self._thread: NativeThread | None = None
        #: By where it is listened.
        self._ears: dict[int, ReportListener] = {}
        self._home = 0
        self._pid = os.getpid()

    def send(
        self, records: Sequence[ProducerRecord], timeout: float
    ) -> list[Exception | None]:
        """Send records, pipelined; return when each is confirmed or has failed.

        :param timeout: Seconds for all of them.
        :returns: For each ``None``, or why it did not arrive.
        :raises BrokerRefused: if the broker does not let us in.
        :raises ConfigurationError: for settings that librdkafka does not take.
        """
        deadline = time.monotonic() + timeout
        client = self._opened()
        place = get_hub_id()
        ear = self._ears.get(place) or self._ears.setdefault(place, ReportListener())
        try:
            batch = PendingReports(len(records), ear)
            self._silence.begin()
            if not ear.idle:
                # Let others come as far as this: what is sent together costs less.
                time.sleep(0)
            for index, record in enumerate(records):
                self._produce(client, batch, index, record, deadline)
            batch.wait(deadline)
        finally:
            self._part(place, ear)
        errors = batch.errors
        if any(errors):
            self._look(client, errors, timeout)
        return errors

    def close(self) -> None:
        """Close what is open. Sending again opens it anew."""
        with self._lock:
            client, thread = self._client, self._thread
            self._client = self._thread = None
            ears, self._ears = self._ears, {}
        for ear in ears.values():
            ear.close()
        if client is not None and thread is not None and self._pid == os.getpid():
            thread.join(_GRACE)
            _let_go([client])

    def _opened(self) -> Producer:
        with self._lock:
            if self._pid != os.getpid():
                self._forget()
            if self._client is None:
                config = {**self._config, "error_cb": self._complaints}
                self._client = create_client(Producer, config)
                self._silence.end()
                serve = partial(self._serve, self._client)
                self._thread = NativeThread(serve, "kafka-producer").start()
                self._home = get_hub_id()
            return self._client

    def _forget(self) -> None:
        """Leave what was opened before a fork to the process that opened it."""
        if self._client is not None:
            keep_undestroyed(self._client)
        self._client = self._thread = None
        self._ears = {}
        self._pid = os.getpid()

    def _serve(self, client: Producer) -> None:
        """In the native thread: have reports called as long as this is our client."""
        while self._client is client:
            try:
                client.poll(_POLL)
            except KafkaException as error:
                # Of an error that ends it, the client raises, and then reports.
                self._complaints(error.args[0])
        # Somebody may still be waiting for a report.
        client.flush(_GRACE / 2)

    def _part(self, place: int, ear: ReportListener) -> None:
        """Threads that have a hub come and go, and their ears with them."""
        if place != self._home and ear.idle and self._ears.pop(place, None) is ear:
            ear.close()

    def _look(
        self, client: Producer, errors: Sequence[Exception | None], timeout: float
    ) -> None:
        """Look whether errors have a cause that others will have, too."""
        if any(isinstance(error, ClientFailed) for error in errors):
            self._give_up(client)
            self._complaints.check()
        if any(isinstance(error, PublishTimeout) for error in errors):
            self._complaints.check()
            if self._silence.is_too_long(timeout) and self._give_up(client):
                logger.warning(
                    "Kafka's client confirms nothing any more of what it is given: the"
                    " next publish makes another"
                )

    def _produce(
        self,
        client: Producer,
        batch: PendingReports,
        index: int,
        record: ProducerRecord,
        deadline: float,
    ) -> None:
        """Give one record to the client, as soon as it has room."""
        report = partial(self._report, batch, index)
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
                    batch.failed(index, late())
                    return
                time.sleep(_FULL)
            except KafkaException as error:
                batch.failed(index, _translated(error.args[0]))
                return

    def _give_up(self, client: Producer) -> bool:
        """A client that had a fatal error, or hangs, sends nothing any more.

        :returns: Whether it was ours until now.
        """
        with self._lock:
            ours = self._client is client
            if ours:
                self._client = self._thread = None
            return ours

    def _report(
        self, batch: PendingReports, index: int, error: t.Any, record: t.Any
    ) -> None:
        """Called by the client, in the native thread."""
        if error is None:
            self._silence.end()
        batch.report(index, None if error is None else _translated(error))


def _let_go(clients: list[Producer]) -> None:
    """The destructor waits for the client's threads: elsewhere, and not for ever."""
    destroy_within(_GRACE, clients.clear)


def _translated(error: t.Any) -> BrokerError:
    code = error.code()
    said = error.str()
    if error.fatal() or code in _PURGED:
        return ClientFailed(
            f"Kafka's client gave up: {said}. The next publish makes another."
        )
    if code in _UNKNOWN_TOPIC:
        return Unroutable(f"There is no such topic: {said}")
    if code == KafkaError._MSG_TIMED_OUT:
        return late()
    found = translate_error(error)
    # A policy may be one for topics, or for records.
    return PublishRefused(str(found)) if type(found) is TopologyMismatch else found


class ClientFailed(BrokerError):
    """The client is of no use any more; another one is made."""
