"""The context of a case: apps on one broker, links with readers, and messages."""

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
from flask_qconsume.broker.capabilities import Capabilities
from flask_qconsume.broker.compose import compose
from flask_qconsume.broker.dead_letters import DeadLetter
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
from flask_qconsume.handling.events import Listener
from flask_qconsume.message import Message
from flask_qconsume.message import Outgoing
from flask_qconsume.running.event import Event
from flask_qconsume.running.worker import Worker
from flask_qconsume.settings import Settings

from ..apps import make_app
from ..waiting import wait_for
from .under_test import BrokerUnderTest

EXCHANGE = "shop"

#: Seconds within which an expected message must come, on a busy machine too.
SOON = 20.0
#: Seconds for which a test watches that no message comes.
QUIET = 0.3


class Reader:
    """A link with a greenlet that reads it and a greenlet that sends its heartbeats.

    Like a subscription, it reads while fewer messages than the prefetch are unsettled.
    """

    def __init__(self, link: Link, room: int) -> None:
        self.link = link
        self.error: BaseException | None = None
        self._room = room
        self._new: list[Delivery] = []
        self._unsettled: set[int] = set()
        self._changed = Event()
        self._ending = Event()
        self._greenlets = [gevent.spawn(self._read), gevent.spawn(self._beat)]

    def take(self, count: int = 1, timeout: float = SOON) -> list[Delivery]:
        """Return the next deliveries, as soon as ``count`` have come."""
        wait_for(
            lambda: len(self._new) >= count or self.error is not None,
            timeout,
            message=lambda: f"{count} messages came; there are {bodies(self._new)}",
        )
        if len(self._new) < count and self.error is not None:
            raise self.error
        taken, self._new = self._new[:count], self._new[count:]
        return taken

    def take_one(self, timeout: float = SOON) -> Delivery:
        return self.take(1, timeout)[0]

    def get(self, timeout: float = SOON) -> Message:
        """Acknowledge the next delivery, and return its message."""
        delivery = self.take_one(timeout)
        self.ack([delivery])
        return delivery.message

    def waiting(self) -> list[Delivery]:
        """Return the deliveries that came and were not taken yet."""
        return self._new

    def expect_nothing(self, seconds: float = QUIET) -> None:
        """Watch for some seconds that no message comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert not self._new, f"{bodies(self._new)} came"
            self._changed.wait(max(0.0, deadline - time.monotonic()))
            self._changed.clear()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.link.ack(deliveries)
        self._note_settled(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self.link.pause()
        self.link.release(deliveries)
        self._note_settled(deliveries)

    def forward(self, *forwards: Forward) -> None:
        """Forward deliveries, and assert that each is confirmed."""
        assert self.link.forward(forwards) == [None] * len(forwards)
        self._note_settled([forward.delivery for forward in forwards])

    def retry(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Retry a delivery, as the settler does after a failure."""
        changed = own_headers.make_retry_headers(
            delivery.message, delivery.message.attempt + 1
        )
        self.forward(Forward(delivery, Lane.MAIN, changed, delay=delay))

    def suspect(
        self, delivery: Delivery, deaths: int = 0, now: float | None = None
    ) -> None:
        """Move a delivery to the suspects, as a worker does."""
        changed = own_headers.make_suspect_headers(
            delivery.message, deaths, now or time.time()
        )
        self.forward(Forward(delivery, Lane.SUSPECTS, changed))

    def dead_letter(
        self, *deliveries: Delivery, reason: str = "bad", expires: float | None = 600.0
    ) -> None:
        """Make dead letters, as the settler does after the last attempt."""
        self.forward(*(forward_dead(each, reason, expires) for each in deliveries))

    def await_loss(self, timeout: float = SOON) -> BaseException:
        """Wait for the error that ends the reader, and return it."""
        wait_for(lambda: self.error is not None, timeout, message="the link is lost")
        assert self.error is not None
        return self.error

    def close(self) -> None:
        """Close the link, as a clean stop does. A second call does nothing."""
        self._ending.set()
        self.link.pause()
        self.link.close()
        self._changed.set()
        gevent.joinall(self._greenlets, timeout=SOON)
        assert all(greenlet.dead for greenlet in self._greenlets)

    def _note_settled(self, deliveries: Iterable[Delivery]) -> None:
        self._unsettled.difference_update(id(delivery) for delivery in deliveries)
        self._changed.set()

    def _read(self) -> None:
        try:
            while not self._ending.is_set() and not self.link.closed:
                room = self._room - len(self._unsettled)
                if room > 0 or self.link.pushes:
                    self._add(self.link.read(max(room, 1)))
                else:
                    self._changed.wait(0.05)
                    self._changed.clear()
        except BrokerError as error:
            self.error = error

    def _add(self, found: Sequence[Delivery]) -> None:
        if not found:
            self._ending.wait(0.01)  # A paused link returns at once.
        self._unsettled.update(id(delivery) for delivery in found)
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


class CaseContext:
    """One broker for one case, and everything that the case opens on it."""

    def __init__(self, broker: BrokerUnderTest) -> None:
        self.broker = broker
        self.capabilities: Capabilities = broker.capabilities
        #: Prefix of the case's names, since cases share brokers.
        self.name = broker.name
        self._brokers: list[Broker] = []
        self._readers: list[Reader] = []
        self._links: list[Link] = []
        self._workers: list[Worker] = []
        self._processes: list[subprocess.Popen[str]] = []
        self.plan = self.plan_queue("billing", "order")
        #: The case's first app. Its queue is bound for the routing key ``order``.
        self.app = self.open_app(self.plan)

    # -- names and apps ----------------------------------------------------------------

    def key(self, routing_key: str) -> str:
        """Return a name with the prefix of this case."""
        return f"{self.name}.{routing_key}"

    def plan_queue(self, name: str, *keys: str, given: t.Any = None) -> QueuePlan:
        """Plan a queue of this case, bound for routing keys of this case."""
        name = self.key(name) if given is None else given.name
        bindings = tuple(Binding(name, EXCHANGE, self.key(key)) for key in keys)
        if given is not None:
            bindings = (Binding(name, given.exchange.name, given.routing_key),)
        kind = self.broker.config.get("queue_type", "quorum")
        return QueuePlan(name, name, kind, bindings, given, delays=(2.0, 30.0))

    def settings(self, **config: t.Any) -> Settings:
        merged = {
            "broker_url": self.broker.url,
            "exchange": EXCHANGE,
            **self.broker.config,
            **config,
        }
        return Settings.from_config(
            {f"QCONSUME_{key.upper()}": value for key, value in merged.items()}
        )

    def open_app(self, *plans: QueuePlan, **config: t.Any) -> Broker:
        """Open the broker object of another app; it is closed with the case."""
        settings = self.settings(**config)
        broker = open_broker(settings, Topology(settings.exchange, plans))
        self._brokers.append(broker)
        return broker

    # -- publishing --------------------------------------------------------------------

    def message(self, body: t.Any, to: str = "order", **options: t.Any) -> Outgoing:
        """Compose a message, as ``publish`` does.

        :param to: The routing key. It gets the case's prefix, unless the message goes
            to the default exchange, where it is the full name of a queue.
        """
        if isinstance(body, bytes):
            options.setdefault("content_type", "application/octet-stream")
        straight = isinstance(exchange := options.get("exchange"), str) and not exchange
        return compose(EXCHANGE, to if straight else self.key(to), body, **options)

    def publish(self, *messages: Outgoing, by: Broker | None = None) -> None:
        """Publish messages, and assert that each is confirmed."""
        errors = (by or self.app).publish(messages, SOON)
        assert errors == [None] * len(messages)

    def fill(self, count: int, **options: t.Any) -> list[bytes]:
        """Publish ``count`` messages to the queue, and return their bodies."""
        sent = [b"%d" % number for number in range(count)]
        self.publish(*(self.message(body, **options) for body in sent))
        return sent

    def publish_refused(self, message: Outgoing, by: Broker | None = None) -> Exception:
        """Publish a message that must be refused, and return the error."""
        (error,) = (by or self.app).publish([message], SOON)
        assert error is not None
        return error

    # -- consuming ---------------------------------------------------------------------

    def open_link(self, plan: QueuePlan | None = None, prefetch: int = 100) -> Link:
        """Open a link of the queue, without a reader."""
        link = self._broker_of(plan).connect(plan or self.plan, Lane.MAIN, prefetch)
        self._links.append(link)
        return link

    def open_reader(
        self,
        plan: QueuePlan | None = None,
        lane: Lane = Lane.MAIN,
        *,
        prefetch: int = 100,
        by: Broker | None = None,
    ) -> Reader:
        """Open a link of the queue, and start to read it."""
        broker = by or self._broker_of(plan)
        reader = Reader(broker.connect(plan or self.plan, lane, prefetch), prefetch)
        self._readers.append(reader)
        return reader

    def _broker_of(self, plan: QueuePlan | None) -> Broker:
        wanted = plan or self.plan
        return next(b for b in self._brokers if wanted in b.topology.queues)

    def depth(self, queue: str | None = None) -> int:
        return self.app.depth(queue or self.plan.name)

    def await_depth(self, depth: int, queue: str | None = None) -> None:
        """Wait for a depth of the queue; RabbitMQ's counts come with a delay."""
        wait_for(
            lambda: self.depth(queue) == depth,
            SOON,
            message=lambda: f"depth {depth}, it is {self.depth(queue)}",
        )

    def list_dead_letters(self, plan: QueuePlan | None = None) -> list[DeadLetter]:
        return list(self.app.dead_letters(plan or self.plan))

    def await_dead_letters(self, count: int) -> None:
        letters = self.app.dead_letters(self.plan)
        wait_for(
            lambda: letters.count() == count, SOON, message=f"{count} dead letters"
        )

    def kill_process_holding(
        self, count: int, lane: Lane = Lane.MAIN, *, acked: int = 0
    ) -> list[dict[str, t.Any]]:
        """Let another process take messages, acknowledge the first, and be killed.

        :param count: How many messages it takes.
        :param acked: How many of them it acknowledges.
        :returns: The body and the mark of each message, as the process reported them.
        """
        process = self._start_holding(count, lane, acked)
        assert process.stdout is not None
        reported = []
        with gevent.Timeout(
            60, AssertionError(f"the process does not hold {count} messages")
        ):
            while len(reported) < count:
                reported.append(json.loads(process.stdout.readline()))
            assert process.stdout.readline() == "acked\n"
        process.kill()
        process.wait(20)
        return reported

    def _start_holding(
        self, count: int, lane: Lane, acked: int
    ) -> subprocess.Popen[str]:
        config = {"broker_url": self.broker.url, **self.broker.config}
        plan = dataclasses.asdict(self.plan)
        task = {
            "config": {f"QCONSUME_{key.upper()}": v for key, v in config.items()},
            "exchange": EXCHANGE,
            "plan": plan,
            "lane": lane.value,
            "count": count,
            "acked": acked,
        }
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.brokers.holding_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        return process

    # -- apps with workers -------------------------------------------------------------

    def start_worker(
        self, qconsume: QConsume, *, listeners: Sequence[Listener] = (), **config: t.Any
    ) -> Worker:
        """Start the worker of an app whose queues have this case's prefix."""
        merged = {
            "broker_url": self.broker.url,
            "exchange": EXCHANGE,
            "queue_prefix": self.key(""),
            **self.broker.config,
            **config,
        }
        worker = Worker(make_app(qconsume, **merged))
        for listener in listeners:
            worker.events.add(listener)
        self._workers.append(worker)
        worker.start()
        return worker

    def close(self) -> None:
        for worker in self._workers:
            if not worker.stopping.is_set():
                worker.stop(timeout=0)
            get_app_consumers(worker.app).close()
        for process in self._processes:
            process.kill()
            process.wait(20)
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()
        for reader in self._readers:
            reader.close()
        for link in self._links:
            link.close()
        for broker in self._brokers:
            broker.close()
        self.broker.close()


def bodies(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.raw for delivery in deliveries]


def forward_dead(delivery: Delivery, reason: str, expires: float | None) -> Forward:
    """Make the forward of a delivery to the dead letters."""
    try:
        raise ValueError("no such card")
    except ValueError as error:
        changed = own_headers.make_dead_letter_headers(
            delivery.message, "bill", delivery.message.queue, reason, error, time.time()
        )
    return Forward(delivery, Lane.DEAD, changed, expires=expires)
