"""What a case is given: apps on one broker, links with readers, and messages."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
import typing as t
from collections.abc import Iterable
from collections.abc import Sequence

import gevent

from flask_qconsume import QConsume
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.base import Broker
from flask_qconsume.broker.base import DeadLetter
from flask_qconsume.broker.capabilities import Capabilities
from flask_qconsume.broker.compose import compose
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import Binding
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.errors import BrokerError
from flask_qconsume.extension import get_app_consumers
from flask_qconsume.message import Message
from flask_qconsume.message import Outgoing
from flask_qconsume.running.event import Event
from flask_qconsume.running.worker import Worker
from flask_qconsume.settings import Settings

from ..apps import make_app
from ..waiting import wait_for
from .places import Place

EXCHANGE = "shop"

#: How long a message may take that is on its way; a busy machine is slow.
SOON = 20.0
#: How long nothing may come where nothing should.
QUIET = 0.3


class Hand:
    """A link in the hand of a case: one greenlet reads it, another one beats.

    As a subscription does, it reads while there is room for what is not settled yet.
    """

    def __init__(self, link: Link, room: int) -> None:
        self.link = link
        self.error: BaseException | None = None
        self._room = room
        self._new: list[Delivery] = []
        self._held: set[int] = set()
        self._changed = Event()
        self._ending = Event()
        self._greenlets = [gevent.spawn(self._read), gevent.spawn(self._beat)]

    def take(self, count: int = 1, timeout: float = SOON) -> list[Delivery]:
        """The next so many, as soon as they are there."""
        wait_for(
            lambda: len(self._new) >= count or self.error is not None,
            timeout,
            message=lambda: f"{count} messages; there are {bodies(self._new)}",
        )
        if len(self._new) < count and self.error is not None:
            raise self.error
        taken, self._new = self._new[:count], self._new[count:]
        return taken

    def take_one(self, timeout: float = SOON) -> Delivery:
        return self.take(1, timeout)[0]

    def get(self, timeout: float = SOON) -> Message:
        """The next one, acknowledged."""
        delivery = self.take_one(timeout)
        self.ack([delivery])
        return delivery.message

    def waiting(self) -> list[Delivery]:
        """Those that came and were not taken yet."""
        return self._new

    def nothing_comes(self, seconds: float = QUIET) -> None:
        """Wait, and see that nothing came."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert not self._new, f"{bodies(self._new)} came"
            self._changed.wait(max(0.0, deadline - time.monotonic()))
            self._changed.clear()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.link.ack(deliveries)
        self._settled(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self.link.pause()
        self.link.release(deliveries)
        self._settled(deliveries)

    def forward(self, *forwards: Forward) -> None:
        """Forward; each must arrive."""
        assert self.link.forward(forwards) == [None] * len(forwards)
        self._settled([forward.delivery for forward in forwards])

    def retry(self, delivery: Delivery, delay: float = 0.0) -> None:
        """As the settler does it after a failure."""
        changed = own_headers.make_retry_headers(
            delivery.message, delivery.message.attempt + 1
        )
        self.forward(Forward(delivery, Lane.MAIN, changed, delay=delay))

    def suspect(
        self, delivery: Delivery, deaths: int = 0, now: float | None = None
    ) -> None:
        """As the triage does it."""
        changed = own_headers.make_suspect_headers(
            delivery.message, deaths, now or time.time()
        )
        self.forward(Forward(delivery, Lane.SUSPECTS, changed))

    def bury(
        self, *deliveries: Delivery, reason: str = "bad", expires: float | None = 600.0
    ) -> None:
        """As the settler does it after the last attempt."""
        self.forward(*(dead(each, reason, expires) for each in deliveries))

    def lost(self, timeout: float = SOON) -> BaseException:
        """The error that ends the reader."""
        wait_for(lambda: self.error is not None, timeout, message="the link is lost")
        assert self.error is not None
        return self.error

    def close(self) -> None:
        """Close the link, as a clean stop does; twice is once."""
        self._ending.set()
        self.link.pause()
        self.link.close()
        self._changed.set()
        gevent.joinall(self._greenlets, timeout=SOON)
        assert all(greenlet.dead for greenlet in self._greenlets)

    def _settled(self, deliveries: Iterable[Delivery]) -> None:
        self._held.difference_update(id(delivery) for delivery in deliveries)
        self._changed.set()

    def _read(self) -> None:
        try:
            while not self._ending.is_set() and not self.link.closed:
                room = self._room - len(self._held)
                if room > 0 or self.link.pushes:
                    self._add(self.link.read(max(room, 1)))
                else:
                    self._changed.wait(0.05)
                    self._changed.clear()
        except BrokerError as error:
            self.error = error

    def _add(self, found: Sequence[Delivery]) -> None:
        if not found:
            gevent.sleep(0.01)  # A link that pauses may not wait.
        self._held.update(id(delivery) for delivery in found)
        self._new += found
        self._changed.set()

    def _beat(self) -> None:
        try:
            while not self._ending.wait(self.link.keep_alive_interval):
                if self.link.closed:
                    return
                self.link.keep_alive()
        except BrokerError as error:
            self.error = self.error or error


class Stage:
    """One broker for one case, and all that the case opens on it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.record: Capabilities = place.record
        #: Makes the names of this case its own, where brokers are shared.
        self.name = place.name
        self._brokers: list[Broker] = []
        self._hands: list[Hand] = []
        self._links: list[Link] = []
        self._workers: list[Worker] = []
        self._holders: list[subprocess.Popen[str]] = []
        self.plan = self.planned("billing", "order")
        #: The case's first app: one queue, bound for ``order``.
        self.app = self.opened(self.plan)

    # -- names and apps ----------------------------------------------------------------

    def key(self, routing_key: str) -> str:
        """A routing key of this case's own."""
        return f"{self.name}.{routing_key}"

    def planned(self, name: str, *keys: str, given: t.Any = None) -> QueuePlan:
        """A queue of this case's own, bound for these keys of its own."""
        name = self.key(name) if given is None else given.name
        bindings = tuple(Binding(name, EXCHANGE, self.key(key)) for key in keys)
        if given is not None:
            bindings = (Binding(name, given.exchange.name, given.routing_key),)
        kind = self.place.config.get("queue_type", "quorum")
        return QueuePlan(name, name, kind, bindings, given, delays=(2.0, 30.0))

    def settings(self, **config: t.Any) -> Settings:
        merged = {
            "broker_url": self.place.url,
            "exchange": EXCHANGE,
            **self.place.config,
            **config,
        }
        return Settings.from_config(
            {f"QCONSUME_{key.upper()}": value for key, value in merged.items()}
        )

    def opened(self, *plans: QueuePlan, **config: t.Any) -> Broker:
        """Another app's broker object, closed with the case."""
        settings = self.settings(**config)
        broker = open_broker(settings, Topology(settings.exchange, plans))
        self._brokers.append(broker)
        return broker

    # -- publishing --------------------------------------------------------------------

    def message(self, body: t.Any, to: str = "order", **options: t.Any) -> Outgoing:
        """A message as ``publish`` composes it.

        :param to: The routing key, made one of this case's own, unless it is a queue's.
        """
        if isinstance(body, bytes):
            options.setdefault("content_type", "application/octet-stream")
        straight = isinstance(exchange := options.get("exchange"), str) and not exchange
        return compose(EXCHANGE, to if straight else self.key(to), body, **options)

    def publish(self, *messages: Outgoing, by: Broker | None = None) -> None:
        """Publish; every one must be confirmed."""
        errors = (by or self.app).publish(messages, SOON)
        assert errors == [None] * len(messages)

    def fill(self, count: int, **options: t.Any) -> list[bytes]:
        """Publish that many to the queue; returns their bodies."""
        made = [b"%d" % number for number in range(count)]
        self.publish(*(self.message(body, **options) for body in made))
        return made

    def refused(self, message: Outgoing, by: Broker | None = None) -> Exception:
        """Publish what must not be confirmed; returns why."""
        (error,) = (by or self.app).publish([message], SOON)
        assert error is not None
        return error

    # -- consuming ---------------------------------------------------------------------

    def link(self, plan: QueuePlan | None = None, prefetch: int = 100) -> Link:
        """A bare link of the queue."""
        link = self._broker_of(plan).connect(plan or self.plan, Lane.MAIN, prefetch)
        self._links.append(link)
        return link

    def hand(
        self,
        plan: QueuePlan | None = None,
        lane: Lane = Lane.MAIN,
        *,
        prefetch: int = 100,
        by: Broker | None = None,
    ) -> Hand:
        """A link of the queue with a reader."""
        broker = by or self._broker_of(plan)
        hand = Hand(broker.connect(plan or self.plan, lane, prefetch), prefetch)
        self._hands.append(hand)
        return hand

    def _broker_of(self, plan: QueuePlan | None) -> Broker:
        wanted = plan or self.plan
        return next(b for b in self._brokers if wanted in b.topology.queues)

    def depth(self, queue: str | None = None) -> int:
        return self.app.depth(queue or self.plan.name)

    def await_depth(self, depth: int, queue: str | None = None) -> None:
        """Counts of RabbitMQ are a little behind."""
        wait_for(
            lambda: self.depth(queue) == depth,
            SOON,
            message=lambda: f"depth {depth}, it is {self.depth(queue)}",
        )

    def letters(self, plan: QueuePlan | None = None) -> list[DeadLetter]:
        return list(self.app.dead_letters(plan or self.plan))

    def await_letters(self, count: int) -> None:
        letters = self.app.dead_letters(self.plan)
        wait_for(lambda: letters.count() == count, SOON, message=f"{count} letters")

    def die_holding(
        self, count: int, lane: Lane = Lane.MAIN, *, acked: int = 0
    ) -> list[dict[str, t.Any]]:
        """Let another process take so many, acknowledge the first, and be killed.

        Returns what it said of each message.
        """
        holder = self._holder(count, lane, acked)
        assert holder.stdout is not None
        said = []
        with gevent.Timeout(60, AssertionError(f"the holder has not {count}")):
            while len(said) < count:
                said.append(json.loads(holder.stdout.readline()))
            assert holder.stdout.readline() == "acked\n"
        holder.kill()
        holder.wait(20)
        return said

    def _holder(self, count: int, lane: Lane, acked: int) -> subprocess.Popen[str]:
        config = {"broker_url": self.place.url, **self.place.config}
        plan = dataclasses.asdict(self.plan)
        told = {
            "config": {f"QCONSUME_{key.upper()}": v for key, v in config.items()},
            "exchange": EXCHANGE,
            "plan": plan,
            "lane": lane.value,
            "count": count,
            "acked": acked,
        }
        holder = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.brokers.holder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._holders.append(holder)
        assert holder.stdin is not None
        holder.stdin.write(json.dumps(told) + "\n")
        holder.stdin.flush()
        return holder

    # -- apps with workers -------------------------------------------------------------

    def worker(self, qconsume: QConsume, **config: t.Any) -> Worker:
        """An app's worker, started; its queues have this case's prefix."""
        merged = {
            "broker_url": self.place.url,
            "exchange": EXCHANGE,
            "queue_prefix": self.key(""),
            **self.place.config,
            **config,
        }
        worker = Worker(make_app(qconsume, **merged))
        self._workers.append(worker)
        worker.start()
        return worker

    def close(self) -> None:
        for worker in self._workers:
            if not worker.stopping.is_set():
                worker.stop(timeout=0)
            get_app_consumers(worker.app).close()
        for holder in self._holders:
            holder.kill()
            holder.wait(20)
            for stream in (holder.stdin, holder.stdout):
                assert stream is not None
                stream.close()
        for hand in self._hands:
            hand.close()
        for link in self._links:
            link.close()
        for broker in self._brokers:
            broker.close()
        self.place.close()


def bodies(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.raw for delivery in deliveries]


def dead(delivery: Delivery, reason: str, expires: float | None) -> Forward:
    """A delivery on its way to the dead letters."""
    try:
        raise ValueError("no such card")
    except ValueError as error:
        changed = own_headers.make_dead_letter_headers(
            delivery.message, "bill", delivery.message.queue, reason, error, time.time()
        )
    return Forward(delivery, Lane.DEAD, changed, expires=expires)
