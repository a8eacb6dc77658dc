"""A worker that kills itself at one point of a message's way, and the app it runs.

The points are where the package lets one stand: a broker and its links are classes, of
which subclasses do what they do and die before or after it; the rest are the app's own
hooks and the signals. Nothing is replaced in the package.
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
from .crash_points import OF_HOOKS
from .crash_points import OF_SIGNALS
from .crash_points import SUSPECTS
from .crash_points import Point

#: Seconds that the broker holds a retry, and that we hold one.
DELAY = 1.0
SHORT_DELAY = 0.3

#: How often a hub runs until what was given to a publisher is sent, and no longer.
_TURNS = 5


class Life:
    """This process's life: where it ends, unless it ends well."""

    def __init__(self) -> None:
        #: How many processes of the case died before.
        self.number = 0
        self.end = ""
        self._spared = False

    @contextlib.contextmanager
    def spared(self) -> t.Iterator[None]:
        """It does not end within the block."""
        self._spared = True
        yield
        self._spared = False

    def reach(self, point: Point, lane: Lane = Lane.MAIN) -> None:
        """Die here, if this is the point."""
        if self.ends_at(point, lane):
            note("died", self.end, self.number)
            os.kill(os.getpid(), signal.SIGKILL)

    def ends_at(self, point: Point, lane: Lane = Lane.MAIN) -> bool:
        """Whether this is the point."""
        prefix = SUSPECTS if lane is Lane.SUSPECTS else ""
        return not self._spared and self.end == prefix + point.value


#: Of this process.
life = Life()


class CrashingLink(Link):
    """Put before a kind of links."""

    _unseen: tuple[Delivery, ...] = ()

    def read(self, room: int) -> Sequence[Delivery]:
        if any(not each.settled for each in self._unseen):
            # Whoever asks again has given away what it got.
            life.reach(Point.TRIAGED, self.lane)
        found = super().read(room)  # type: ignore[safe-super]
        if found:
            life.reach(Point.RECEIVED, self.lane)
        self._unseen = tuple(found)
        return found

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        life.reach(Point.BEFORE_ACK, self.lane)
        super().ack(deliveries)  # type: ignore[safe-super]
        life.reach(Point.AFTER_ACK, self.lane)

    def forward(self, forwards: Sequence[Forward]) -> list[Exception | None]:
        before, after = _FORWARDED[forwards[0].lane]
        life.reach(before, self.lane)
        errors = super().forward(forwards)  # type: ignore[safe-super]
        life.reach(after, self.lane)
        return errors

    def postpone(self, delivery: Delivery, attempt: int, delay: float) -> None:
        life.reach(Point.BEFORE_POSTPONE, self.lane)
        super().postpone(delivery, attempt, delay)
        life.reach(Point.AFTER_POSTPONE, self.lane)

    def keep_alive(self) -> None:
        life.reach(Point.BEFORE_BEAT, self.lane)
        super().keep_alive()
        life.reach(Point.AFTER_BEAT, self.lane)

    def pause(self) -> None:
        life.reach(Point.BEFORE_PAUSE, self.lane)
        super().pause()  # type: ignore[safe-super]
        life.reach(Point.AFTER_PAUSE, self.lane)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        life.reach(Point.BEFORE_RELEASE, self.lane)
        super().release(deliveries)
        life.reach(Point.AFTER_RELEASE, self.lane)

    def close(self) -> None:
        life.reach(Point.BEFORE_CLOSE, self.lane)
        super().close()  # type: ignore[safe-super]
        life.reach(Point.AFTER_CLOSE, self.lane)


_FORWARDED = {
    Lane.MAIN: (Point.BEFORE_RETRY, Point.AFTER_RETRY),
    Lane.SUSPECTS: (Point.BEFORE_SUSPECT, Point.AFTER_SUSPECT),
    Lane.DEAD: (Point.BEFORE_DEAD, Point.AFTER_DEAD),
}


class CrashingBroker(Broker):
    """Put before a kind of brokers."""

    def connect(self, plan: QueuePlan, lane: Lane, prefetch: int) -> Link:
        link = super().connect(plan, lane, prefetch)  # type: ignore[safe-super]
        life.reach(Point.CONNECTED, lane)
        return link

    def declare(self) -> None:
        super().declare()  # type: ignore[safe-super]
        life.reach(Point.DECLARED)

    def publish(
        self, messages: Sequence[Outgoing], timeout: float
    ) -> list[Exception | None]:
        life.reach(Point.BEFORE_PUBLISH)
        if life.ends_at(Point.SENT):
            gevent.spawn(_die_when_sent)
        errors = super().publish(messages, timeout)  # type: ignore[safe-super]
        life.reach(Point.AFTER_PUBLISH)
        return errors

    def close(self) -> None:
        super().close()  # type: ignore[safe-super]
        life.reach(Point.BROKER_CLOSED)


def _die_when_sent() -> None:
    """By then whoever sends has had its turn, and an answer takes a way there and back.

    Either way nothing was confirmed to whom it matters: it may be there or not.
    """
    for _ in range(_TURNS):
        gevent.sleep(0)
    life.reach(Point.SENT)


class CrashingConsumers(AppConsumers):
    """What belongs to an app, with such a broker."""

    def _open_broker(self) -> Broker:
        # Its kind; nothing is opened by that.
        kind: t.Any = type(open_broker(self.settings, self.topology))
        link = type(f"Crashing{kind.link.__name__}", (CrashingLink, kind.link), {})
        broker = type(
            f"Crashing{kind.__name__}", (CrashingBroker, kind), {"link": link}
        )
        return t.cast(Broker, broker(self.settings, self.topology))


def make_app(config: t.Mapping[str, t.Any], key: str) -> Flask:
    """The app under test: one consumer, whose messages say what happens to them.

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
    """Die at the signals; what is returned must be kept, or they are forgotten."""
    receivers = [_receiver(point) for point in OF_SIGNALS.values()]
    for name, receiver in zip(OF_SIGNALS, receivers, strict=True):
        getattr(signals, name).connect(receiver, app)
    return receivers


def _hook(point: Point) -> t.Callable[..., None]:
    return lambda *_: life.reach(point, _lane())


def _receiver(point: Point) -> t.Callable[..., None]:
    def receiver(sender: t.Any, message: t.Any = None, **_: t.Any) -> None:
        lane = _lane_of(message)
        life.reach(point, lane)
        if point is Point.RETRIED:
            # It runs when nothing else does: once the message is held.
            gevent.spawn(life.reach, Point.HELD, lane)

    return receiver


def _lane() -> Lane:
    """Where the message comes from that is being handled, if one is."""
    return _lane_of(current_message)


def _lane_of(message: t.Any) -> Lane:
    queue = getattr(message, "queue", "") if message else ""
    return Lane.SUSPECTS if queue.endswith(".suspects") else Lane.MAIN


def work(body: dict[str, t.Any]) -> None:
    """Do what the message says."""
    attempt = current_message.attempt
    note("start", body["n"], attempt)
    life.reach(Point.BEGUN if attempt == 1 else Point.BEGUN_AGAIN, _lane())
    _TODO[body["do"]](body)
    note("done", body["n"], attempt)
    life.reach(Point.COMMITTED, _lane())


def _retry(body: t.Any) -> None:
    if current_message.attempt == 1:
        raise Retry(body["delay"])


def _reject(body: t.Any) -> None:
    raise Reject("told to reject")


def _drop(body: t.Any) -> None:
    note("done", body["n"], current_message.attempt)
    raise Drop("told to drop")


def _wait(body: t.Any) -> None:
    """Until the process dies; once."""
    if life.number == 0:
        gevent.sleep(600)


def _stop(body: t.Any) -> None:
    """Have the process stop, and go on for a while; once."""
    if life.number == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        current_message.stopping.wait(30)
        gevent.sleep(SHORT_DELAY)


def _publish(body: t.Any) -> None:
    """Two messages. What was confirmed of the first one must hold, too."""
    publish = get_app_consumers(current_app).publish
    with life.spared():
        publish(body["key"], {"n": 2, "do": "ack"})
    publish(body["key"], {"n": 3, "do": "ack"})


_TODO: dict[str, t.Callable[[t.Any], None]] = {
    "ack": lambda body: None,
    "retry": _retry,
    "reject": _reject,
    "drop": _drop,
    "wait": _wait,
    "stop": _stop,
    "publish": _publish,
}
