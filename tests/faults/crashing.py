"""A worker that kills itself at a planned point, and its app.

Subclasses of a broker and its links kill the process before or after a method. Hooks of
the app and signals are the remaining points. No code of the package is replaced.
"""

from __future__ import annotations

import contextlib
import os
import signal
import typing as t
from collections.abc import Sequence

import gevent
from flask import Flask
from flask import current_app

from flask_qconsume import Drop
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import current_message
from flask_qconsume import signals
from flask_qconsume.appconsumers import KEY
from flask_qconsume.appconsumers import AppConsumers
from flask_qconsume.appconsumers import get_app_consumers
from flask_qconsume.broker.base import Broker
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.message import Outgoing

from ..fleet.ledger import note
from ..waiting import hang
from ..waiting import spend
from .crash_points import OF_HOOKS
from .crash_points import OF_SIGNALS
from .crash_points import SUSPECTS
from .crash_points import Point

#: Seconds of a retry that the broker holds, and of one that the worker holds.
DELAY = 1.0
SHORT_DELAY = 0.3

#: Turns of the hub after which a publisher has sent a message and no answer has come.
_HUB_TURNS = 5


class PlannedCrash:
    """The point at which this process kills itself, if any."""

    def __init__(self) -> None:
        #: Number of processes of the case that died before.
        self.number = 0
        self.point = ""
        self._suspended = False

    @contextlib.contextmanager
    def suspended(self) -> t.Iterator[None]:
        """Do not crash within the block."""
        self._suspended = True
        yield
        self._suspended = False

    def reach(self, point: Point, lane: Lane = Lane.MAIN) -> None:
        """Kill the process, if this is the planned point."""
        if self.is_planned_at(point, lane):
            note("died", self.point, self.number)
            os.kill(os.getpid(), signal.SIGKILL)

    def is_planned_at(self, point: Point, lane: Lane = Lane.MAIN) -> bool:
        """Return whether this is the planned point."""
        prefix = SUSPECTS if lane is Lane.SUSPECTS else ""
        return not self._suspended and self.point == prefix + point.value


#: The crash of this process.
crash = PlannedCrash()


class CrashingLink(Link):
    """Mixin for a link class, with crashes around its methods."""

    _unseen: tuple[Delivery, ...] = ()

    def read(self, room: int) -> Sequence[Delivery]:
        if any(not each.settled for each in self._unseen):
            # The caller has passed its deliveries on when it reads again.
            crash.reach(Point.TRIAGED, self.lane)
        found = super().read(room)  # type: ignore[safe-super]
        if found:
            crash.reach(Point.RECEIVED, self.lane)
        self._unseen = tuple(found)
        return found

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        crash.reach(Point.BEFORE_ACK, self.lane)
        super().ack(deliveries)  # type: ignore[safe-super]
        crash.reach(Point.AFTER_ACK, self.lane)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        before, after = _FORWARDED[forwards[0].lane]
        crash.reach(before, self.lane)
        errors = super().forward(forwards)  # type: ignore[safe-super]
        crash.reach(after, self.lane)
        return errors

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        crash.reach(Point.BEFORE_POSTPONE, self.lane)
        super().postpone(delivery, attempt, delay)
        crash.reach(Point.AFTER_POSTPONE, self.lane)

    def keep_alive(self) -> None:
        crash.reach(Point.BEFORE_BEAT, self.lane)
        super().keep_alive()
        crash.reach(Point.AFTER_BEAT, self.lane)

    def pause(self) -> None:
        crash.reach(Point.BEFORE_PAUSE, self.lane)
        super().pause()  # type: ignore[safe-super]
        crash.reach(Point.AFTER_PAUSE, self.lane)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        crash.reach(Point.BEFORE_RELEASE, self.lane)
        super().release(deliveries)
        crash.reach(Point.AFTER_RELEASE, self.lane)

    def close(self) -> None:
        crash.reach(Point.BEFORE_CLOSE, self.lane)
        super().close()  # type: ignore[safe-super]
        crash.reach(Point.AFTER_CLOSE, self.lane)


_FORWARDED = {
    Lane.MAIN: (Point.BEFORE_RETRY, Point.AFTER_RETRY),
    Lane.SUSPECTS: (Point.BEFORE_SUSPECT, Point.AFTER_SUSPECT),
    Lane.DEAD: (Point.BEFORE_DEAD, Point.AFTER_DEAD),
}


class CrashingBroker(Broker):
    """Mixin for a broker class, with crashes around its methods."""

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        link = super().connect(plan, lane, prefetch)  # type: ignore[safe-super]
        crash.reach(Point.CONNECTED, lane)
        return link

    def declare(self) -> None:
        super().declare()  # type: ignore[safe-super]
        crash.reach(Point.DECLARED)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        crash.reach(Point.BEFORE_PUBLISH)
        if crash.is_planned_at(Point.SENT):
            gevent.spawn(_die_when_sent)
        errors = super().publish(messages, timeout)  # type: ignore[safe-super]
        # On a loaded machine the answer may come first; the caller never sees it.
        crash.reach(Point.SENT)
        crash.reach(Point.AFTER_PUBLISH)
        return errors

    def close(self) -> None:
        super().close()  # type: ignore[safe-super]
        crash.reach(Point.BROKER_CLOSED)


def _die_when_sent() -> None:
    """Crash once a message is sent, before the broker's answer has come.

    In both cases the caller has no confirmation: the message may have arrived or not.
    """
    for _ in range(_HUB_TURNS):
        gevent.sleep(0)
    crash.reach(Point.SENT)


class CrashingConsumers(AppConsumers):
    """The objects of an app, with a crashing broker."""

    def _open_broker(self) -> Broker:
        # Only the class is used; this broker object never connects.
        kind: t.Any = type(open_broker(self.settings, self.topology))
        link = type(f"Crashing{kind.link.__name__}", (CrashingLink, kind.link), {})
        broker = type(
            f"Crashing{kind.__name__}", (CrashingBroker, kind), {"link": link}
        )
        return t.cast(Broker, broker(self.settings, self.topology))


def make_app(config: t.Mapping[str, t.Any], key: str) -> Flask:
    """Make the app under test: one consumer, whose messages contain their task.

    :param key: The routing key of its messages.
    """
    app = Flask("crashing")
    app.config.from_mapping(config)
    qconsume = QConsume(app)
    qconsume.add_consumer("work", work, routing_key=key)
    settings = app.extensions[KEY].settings
    app.extensions[KEY] = CrashingConsumers(app, settings)
    for name, point in OF_HOOKS.items():
        getattr(qconsume, name)(_hook(point))
    return app


def connect_signals(app: Flask) -> list[t.Any]:
    """Crash at signals. Keep the returned receivers: signals hold weak references."""
    receivers = [_receiver(point) for point in OF_SIGNALS.values()]
    for name, receiver in zip(OF_SIGNALS, receivers, strict=True):
        getattr(signals, name).connect(receiver, app)
    return receivers


def _hook(point: Point) -> t.Callable[..., None]:
    return lambda *_: crash.reach(point, _lane())


def _receiver(point: Point) -> t.Callable[..., None]:
    def receiver(sender: t.Any, message: t.Any = None, **_: t.Any) -> None:
        lane = _find_lane(message)
        crash.reach(point, lane)
        if point is Point.RETRIED:
            # This greenlet runs later, when the worker holds the message.
            gevent.spawn(crash.reach, Point.HELD, lane)

    return receiver


def _lane() -> Lane:
    """Return the lane of the message that is being handled, if there is one."""
    return _find_lane(current_message)


def _find_lane(message: t.Any) -> Lane:
    queue = getattr(message, "queue", "") if message else ""
    return Lane.SUSPECTS if queue.endswith(".suspects") else Lane.MAIN


def work(body: dict[str, t.Any]) -> None:
    """Do the task of the message."""
    attempt = current_message.attempt
    note("start", body["n"], attempt)
    crash.reach(Point.BEGUN if attempt == 1 else Point.BEGUN_AGAIN, _lane())
    _TASKS[body["do"]](body)
    note("done", body["n"], attempt)
    crash.reach(Point.COMMITTED, _lane())


def _retry(body: t.Any) -> None:
    if current_message.attempt == 1:
        raise Retry(body["delay"])


def _reject(body: t.Any) -> None:
    # The error makes the attempt a failed one, with a signal of its own.
    raise Reject("told to reject") from ValueError("no such task")


def _drop(body: t.Any) -> None:
    note("done", body["n"], current_message.attempt)
    raise Drop("told to drop")


def _wait(body: t.Any) -> None:
    """Wait until the process dies, in the first process only."""
    if crash.number == 0:
        hang()


def _stop(body: t.Any) -> None:
    """Stop the process while handling, in the first process only."""
    if crash.number == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        current_message.stopping.wait(30)
        spend(SHORT_DELAY)


def _publish(body: t.Any) -> None:
    """Publish two messages; the first is confirmed and must not be lost."""
    publish = get_app_consumers(current_app).publish
    with crash.suspended():
        publish(body["key"], {"n": 2, "do": "ack"})
    publish(body["key"], {"n": 3, "do": "ack"})


_TASKS: dict[str, t.Callable[[t.Any], None]] = {
    "ack": lambda body: None,
    "retry": _retry,
    "reject": _reject,
    "drop": _drop,
    "wait": _wait,
    "stop": _stop,
    "publish": _publish,
}
