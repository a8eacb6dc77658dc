"""One producer of Kafka's for a process: whoever sends waits cooperatively.

A native thread serves the client's reports on what was delivered; the client's own
threads do the rest. A record counts as sent when all replicas in sync have it.
"""

from __future__ import annotations

import os
import threading
import time
import typing as t
from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import Producer

from ..errors import BrokerError
from ..errors import PublishRefused
from ..errors import PublishTimeout
from ..errors import Unroutable
from .kafka_client import Complaints
from .kafka_client import destroyed
from .kafka_client import leave_alone
from .kafka_client import made
from .kafka_faults import translated
from .native import Bell
from .native import NativeThread

#: Seconds that the native thread waits for reports before it looks about.
_POLL = 0.1
#: Seconds between two looks for room where the client's own queue is full.
_FULL = 0.01
#: Seconds that a close waits for the native thread.
_GRACE = 2.0

_UNKNOWN_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
_REFUSED = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError._UNKNOWN_PARTITION,
)


class Record(t.NamedTuple):
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


class _Batch:
    """What was sent by one call, and what is reported of it."""

    def __init__(self, size: int, bell: Bell) -> None:
        self.errors: list[Exception | None] = [_NOT_REPORTED] * size
        self._bell = bell
        self._reported = 0
        self._expected = size
        self._waited_for = False

    def report(self, index: int, error: t.Any, record: t.Any) -> None:
        """Called by the client, in the native thread."""
        self.errors[index] = None if error is None else _translated(error)
        self._reported += 1
        if self._waited_for and self.complete:
            self._bell.ring()

    def failed(self, index: int, error: Exception) -> None:
        """It was never given to the client."""
        self.errors[index] = error
        self._expected -= 1

    @property
    def complete(self) -> bool:
        return self._reported >= self._expected

    def wait(self, deadline: float) -> None:
        """Wait for all reports; seen by the other thread before it is looked at."""
        self._waited_for = True
        while not self.complete:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._bell.wait(left)


_NOT_REPORTED = PublishTimeout(
    "Kafka did not confirm the record in time. It may have taken it or not."
)


class KafkaProducer:
    """Sends records, from any greenlet or thread. Opens nothing before it is used.

    After a fork, the child has a client of its own.

    :param config: librdkafka's settings.
    """

    def __init__(self, config: Mapping[str, t.Any]) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._client: Producer | None = None
        self._complaints = Complaints()
        self._thread: NativeThread | None = None
        self._bells: deque[Bell] = deque()
        self._pid = os.getpid()

    def send(self, records: Sequence[Record], timeout: float) -> list[Exception | None]:
        """Send records, pipelined; return when each is confirmed or has failed.

        :param timeout: Seconds for all of them.
        :returns: For each ``None``, or why it did not arrive.
        :raises BrokerRefused: if the broker does not let us in.
        :raises ConfigurationError: for settings that librdkafka does not take.
        """
        deadline = time.monotonic() + timeout
        client = self._opened()
        bell = self._bell()
        try:
            batch = _Batch(len(records), bell)
            for index, record in enumerate(records):
                self._produce(client, batch, index, record, deadline)
            batch.wait(deadline)
        finally:
            self._bells.append(bell)
        if any(map(_is_fatal, batch.errors)):
            self._give_up(client)
        if any(isinstance(error, PublishTimeout) for error in batch.errors):
            self._complaints.check()
        return [_own(error) for error in batch.errors]

    def close(self) -> None:
        """Close what is open. Sending again opens it anew."""
        with self._lock:
            client, thread = self._client, self._thread
            self._client = self._thread = None
            bells, self._bells = self._bells, deque()
        for bell in bells:
            bell.close()
        if client is not None and thread is not None and self._pid == os.getpid():
            thread.join(_GRACE)
            _let_go([client])

    def _opened(self) -> Producer:
        with self._lock:
            if self._pid != os.getpid():
                self._forget()
            if self._client is None:
                config = {**self._config, "error_cb": self._complaints}
                self._client = made(Producer, config)
                serve = partial(self._serve, self._client)
                self._thread = NativeThread(serve, "kafka-producer").start()
            return self._client

    def _forget(self) -> None:
        """Leave what was opened before a fork to the process that opened it."""
        if self._client is not None:
            leave_alone(self._client)
        self._client = self._thread = None
        self._bells = deque()
        self._pid = os.getpid()

    def _serve(self, client: Producer) -> None:
        """In the native thread: have reports called as long as this is our client."""
        while self._client is client:
            client.poll(_POLL)
        # Somebody may still be waiting for a report.
        client.flush(_GRACE / 2)

    def _bell(self) -> Bell:
        try:
            return self._bells.pop()
        except IndexError:
            return Bell()

    def _produce(
        self,
        client: Producer,
        batch: _Batch,
        index: int,
        record: Record,
        deadline: float,
    ) -> None:
        """Give one record to the client, as soon as it has room."""
        report = partial(batch.report, index)
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
                    batch.failed(index, _NOT_REPORTED)
                    return
                time.sleep(_FULL)
            except KafkaException as error:
                batch.failed(index, _translated(error.args[0]))
                return

    def _give_up(self, client: Producer) -> None:
        """A client that had a fatal error sends nothing any more."""
        with self._lock:
            if self._client is client:
                self._client = self._thread = None


def _let_go(clients: list[Producer]) -> None:
    """The destructor waits for the client's threads: elsewhere, and not for ever."""
    destroyed(_GRACE, clients.clear)


def _translated(error: t.Any) -> BrokerError:
    code = error.code()
    said = error.str()
    if error.fatal():
        return Fatal(f"Kafka's client gave up: {said}. The next publish makes another.")
    if code in _UNKNOWN_TOPIC:
        return Unroutable(f"There is no such topic: {said}")
    if code in _REFUSED:
        return PublishRefused(f"Kafka refused the record: {said}")
    if code == KafkaError._MSG_TIMED_OUT:
        return PublishTimeout(str(_NOT_REPORTED))
    return translated(error)


class Fatal(BrokerError):
    """The client is of no use any more; another one is made."""


def _is_fatal(error: Exception | None) -> bool:
    return isinstance(error, Fatal)


def _own(error: Exception | None) -> Exception | None:
    """Not one exception for several: each may be raised somewhere."""
    return PublishTimeout(str(error)) if error is _NOT_REPORTED else error
