"""Listeners for tests: one records every event, one raises an exception at each."""

from __future__ import annotations

import typing as t

from flask_qconsume.handling.events import Events
from flask_qconsume.handling.events import Listener


class Recorder(Listener):
    """Records every event as a tuple, which begins with the event's name.

    Endings are recorded as ``"handled"``, ``"settled"`` and ``"published"``.
    """

    def __init__(self) -> None:
        self.told: list[tuple[t.Any, ...]] = []

    def __call__(self, *names: str) -> list[tuple[t.Any, ...]]:
        """Return what was recorded, only of events with these names if any is given."""
        return [each for each in self.told if each[0] in names or not names]

    @property
    def names(self) -> list[str]:
        """The names of all events so far."""
        return [each[0] for each in self.told]

    def handling(self, handling: t.Any) -> t.Any:
        about = handling.consumer.name, handling.message.attempt
        self._record("handling", *about)
        return lambda result: self._record("handled", *about, result)

    def settling(self, consumer: t.Any, action: str, messages: t.Any) -> t.Any:
        about = consumer.name, action, len(messages)
        self._record("settling", *about)
        return lambda errors: self._record("settled", *about, errors)

    def publishing(self, messages: t.Any) -> t.Any:
        self._record("publishing", len(messages))
        for message in messages:
            message.headers["traced"] = "yes"
        return lambda errors: self._record("published", errors)

    def received(self, consumer: t.Any, messages: t.Any) -> None:
        self._record("received", consumer.name, len(messages))

    def failed(self, handling: t.Any, result: t.Any) -> None:
        self._record("failed", handling.message.attempt, type(result.error))

    def decided(
        self, consumer: t.Any, message: t.Any, result: t.Any, seconds: float
    ) -> None:
        assert 0 <= seconds < 60
        self._record("decided", consumer.name, message.attempt, type(result.outcome))

    def suspected(self, consumer: t.Any, message: t.Any, rejected: t.Any) -> None:
        self._record("suspected", consumer.name, rejected is not None)

    def lost(self, consumer: t.Any, messages: t.Any) -> None:
        self._record("lost", consumer.name, len(messages))

    def connected(self, subscription: str, queue: str) -> None:
        self._record("connected", subscription, queue)

    def disconnected(self, subscription: str, queue: str, error: BaseException) -> None:
        self._record("disconnected", subscription, queue)

    def problem_began(self, problem: t.Any) -> None:
        self._record("problem_began", problem.kind)

    def problem_ended(self, problem: t.Any, seconds: float) -> None:
        assert seconds >= 0
        self._record("problem_ended", problem.kind)

    def worker_started(self, worker: t.Any) -> None:
        self._record("worker_started", worker)

    def worker_stopping(self, worker: t.Any) -> None:
        self._record("worker_stopping", worker)

    def worker_stopped(self, worker: t.Any, clean: bool) -> None:
        self._record("worker_stopped", worker, clean)

    def _record(self, *values: t.Any) -> None:
        self.told.append(values)


#: The names of all events.
KINDS = tuple(vars(Events()))


def make_raisers(error: type[BaseException]) -> list[Listener]:
    """Create listeners that raise an error at each event, and at each ending."""

    def raise_it(*arguments: t.Any) -> None:
        raise error()

    def begin(*arguments: t.Any) -> t.Any:
        return raise_it

    lasting = ("handling", "settling", "publishing")
    methods = [dict.fromkeys(KINDS, raise_it), dict.fromkeys(lasting, begin)]
    return [type("Raiser", (Listener,), each)() for each in methods]
