"""Send the signals of one app: listen to its events, and call blinker's receivers.

A listener costs time for each message. So the sender listens to an event only once a
receiver was connected to a signal that it sends then.
"""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Sequence

from flask import Flask

from ..message import Message
from ..message import Outgoing
from ..outcomes import Ack
from ..outcomes import Drop
from ..outcomes import Reject
from ..outcomes import Retry
from ..outcomes import find_kind
from ..registration.consumer import Consumer
from . import signals
from .context import Handling
from .events import STOPS_AND_LIMITS
from .events import Ending
from .events import Events
from .events import Listener
from .result import Result
from .signals import send

_BY_OUTCOME = {
    Ack: signals.message_handled,
    Retry: signals.message_retried,
    Reject: signals.message_rejected,
    Drop: signals.message_dropped,
}


class SignalSender:
    """Sends the signals of one app, as long as this object exists."""

    def __init__(self, app: Flask, events: Events) -> None:
        self._events = events
        workers = (
            *(signals.worker_started, signals.worker_stopping),
            signals.worker_stopped,
        )
        self._idle: dict[Listener, tuple[t.Any, ...]] = {
            _Messages(app): (signals.message_received, *_BY_OUTCOME.values()),
            _Failures(app): (signals.message_failed,),
            _Crashes(app): (signals.message_rejected,),
            _Published(app): (signals.message_published,),
            _Workers(app): workers,
        }
        for signal in [each for group in self._idle.values() for each in group]:
            # blinker holds the bound method weakly, so this keeps no app alive.
            signal.receiver_connected.connect(self._listen)
            if signal.receivers:
                self._listen(signal)

    def _listen(self, signal: t.Any, **_: t.Any) -> None:
        for listener, group in list(self._idle.items()):
            # Another thread may connect a receiver at the same time.
            if signal in group and self._idle.pop(listener, ()):
                self._events.add(listener)


class _Messages(Listener):
    def __init__(self, app: Flask) -> None:
        self._app = app

    def handling(self, handling: Handling) -> Ending:
        about: dict[str, t.Any] = {
            "consumer": handling.consumer,
            "message": handling.message,
        }
        send(signals.message_received, self._app, **about)
        return functools.partial(self._end, about)

    def _end(self, about: dict[str, t.Any], result: Result | None) -> None:
        if result is not None:
            about = {**about, "outcome": result.outcome, "error": result.error}
            send(_BY_OUTCOME[find_kind(result.outcome)], self._app, **about)


class _Failures(Listener):
    def __init__(self, app: Flask) -> None:
        self._app = app

    def failed(self, handling: Handling, result: Result) -> None:
        send(
            signals.message_failed,
            self._app,
            consumer=handling.consumer,
            message=handling.message,
            error=result.error,
            outcome=result.outcome,
            final=not isinstance(result.outcome, Retry),
            foreseen=result.foreseen,
        )


class _Crashes(Listener):
    def __init__(self, app: Flask) -> None:
        self._app = app

    def suspected(
        self, consumer: Consumer, message: Message, rejected: Reject | None
    ) -> None:
        if rejected is not None:
            send(
                signals.message_rejected,
                self._app,
                consumer=consumer,
                message=message,
                outcome=rejected,
                error=None,
            )


class _Published(Listener):
    def __init__(self, app: Flask) -> None:
        self._app = app

    def publishing(self, messages: Sequence[Outgoing]) -> Ending:
        return functools.partial(self._end, messages)

    def _end(
        self,
        messages: Sequence[Outgoing],
        errors: Sequence[BaseException | None] | None,
    ) -> None:
        for message, error in zip(messages, errors or [], strict=False):
            if error is None:
                send(
                    signals.message_published,
                    self._app,
                    passing=STOPS_AND_LIMITS,
                    message=message,
                )


class _Workers(Listener):
    def __init__(self, app: Flask) -> None:
        self._app = app

    def worker_started(self, worker: t.Any) -> None:
        send(signals.worker_started, self._app, worker=worker)

    def worker_stopping(self, worker: t.Any) -> None:
        send(signals.worker_stopping, self._app, worker=worker)

    def worker_stopped(self, worker: t.Any, clean: bool) -> None:
        send(signals.worker_stopped, self._app, worker=worker, clean=clean)
