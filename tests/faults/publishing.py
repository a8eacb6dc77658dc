"""Publishes all the time, confirmed, and writes down what came of it.

Knows nothing of faults; it goes on after whatever a broker says.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections.abc import Callable

from flask_qconsume import BrokerError
from flask_qconsume.extension import AppConsumers

from ..fleet.ledger import Writer
from ..waiting import wait_for

#: Messages that are published at once.
BATCH = 100
#: How many keys there are, one after the other: those of a key follow in this distance.
KEYS = 40


class Publishing:
    """Publishes numbers, each of them once, until it is stopped.

    A number is ``confirmed`` in the ledger, or ``refused``: then it may be there or
    not, and it is not tried again.

    :param rate: Messages a second, at the most.
    :param full: Whether so much is not handled yet that it had better wait.
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
        #: Of two who publish at once nobody could say whose message comes first.
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publishing")
        #: The number of the next message.
        self.next = 0
        self.confirmed = 0
        self.refused = 0
        #: What ended it, which is no error of a broker's.
        self.problem: BaseException | None = None

    def send(self, **body: t.Any) -> int:
        """Publish one message more, until it is confirmed, and return its number."""
        return wait_for(lambda: self._sent(body), 60) - 1

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

    def _sent(self, body: dict[str, t.Any]) -> int:
        """One more than the number, if it was confirmed."""
        numbers, errors = self._publish(1, body)
        return 0 if errors[0] else numbers[0] + 1

    def _publish(
        self, size: int, body: dict[str, t.Any]
    ) -> tuple[range, list[Exception | None]]:
        with self._turn:
            numbers = range(self.next, self.next + size)
            self.next = numbers.stop
            errors = self._errors(
                [("work", {"n": n, **body}, {"key": str(n % KEYS)}) for n in numbers]
            )
        for n, error in zip(numbers, errors, strict=True):
            self._ledger.note("refused" if error else "confirmed", n)
        refused = sum(error is not None for error in errors)
        self.refused += refused
        self.confirmed += size - refused
        return numbers, errors

    def _errors(self, messages: list[t.Any]) -> list[Exception | None]:
        """For each of them ``None``, or why it was not confirmed."""
        try:
            self._consumers.publish_many(messages)
        except BrokerError as error:
            # Where it does not say which, it may be any.
            return list(getattr(error, "errors", ())) or [error] * len(messages)
        return [None] * len(messages)
