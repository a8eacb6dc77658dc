"""A publisher that runs through all faults, and notes the result of each message."""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Callable

from flask_qconsume import BrokerError
from flask_qconsume.extension import AppConsumers

from ..fleet.ledger import Writer
from ..waiting import wait_for

#: Messages of one batch.
BATCH = 100
#: Number of keys. Consecutive messages have consecutive keys.
KEYS = 40


class Publishing:
    """Publisher of numbered messages, each of them once, until it is stopped.

    The ledger has each number as ``confirmed`` or as ``refused``. A refused message may
    have arrived or not, and is not published again.

    :param rate: Most messages per second.
    :param full: Returns whether so many messages are unhandled that it should wait.
    """

    def __init__(
        self,
        consumers: AppConsumers,
        ledger: Writer,
        rate: float,
        full: Callable[[], bool],
    ) -> None:
        self._consumers = consumers
        self._ledger = ledger
        self._pause = BATCH / rate
        self._full = full
        #: Held while publishing, since the order of concurrent batches is not known.
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publishing")
        #: The number of the next message.
        self.next = 0
        self.confirmed = 0
        self.refused = 0
        #: The error that ended it. Errors of the broker do not end it.
        self.problem: BaseException | None = None

    def send(self, **body: t.Any) -> int:
        """Publish messages until one is confirmed, and return its number."""
        return wait_for(lambda: self._try_send(body), 60) - 1

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                due = max(due + self._pause, time.monotonic() - self._pause)
                if not self._full():
                    self._publish(BATCH, {"seconds": 0})
        except BaseException as error:
            self.problem = error

    def _try_send(self, body: dict[str, t.Any]) -> int:
        """Publish one message; return its number + 1 if it was confirmed, else 0."""
        numbers, errors = self._publish(1, body)
        return 0 if errors[0] else numbers[0] + 1

    def _publish(
        self, size: int, body: dict[str, t.Any]
    ) -> tuple[range, list[Exception | None]]:
        with self._turn:
            numbers = range(self.next, self.next + size)
            self.next = numbers.stop
            errors = self._publish_all(
                [("work", {"n": n, **body}, {"key": str(n % KEYS)}) for n in numbers]
            )
        for n, error in zip(numbers, errors, strict=True):
            self._ledger.note("refused" if error else "confirmed", n)
        refused = sum(error is not None for error in errors)
        self.refused += refused
        self.confirmed += size - refused
        return numbers, errors

    def _publish_all(self, messages: list[t.Any]) -> list[Exception | None]:
        """Publish messages; return ``None`` or an error for each of them."""
        try:
            self._consumers.publish_many(messages)
        except BrokerError as error:
            # An error without details applies to all messages.
            return list(getattr(error, "errors", ())) or [error] * len(messages)
        return [None] * len(messages)
