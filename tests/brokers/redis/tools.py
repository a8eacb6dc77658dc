"""A broker on a throwaway Redis with one queue, and short words to use it by."""

from __future__ import annotations

import contextlib
import typing as t
import uuid

import redis

from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import Binding
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.message import Outgoing
from flask_qconsume.settings import Settings

from ...waiting import wait_for

EXCHANGE = "shop"
QUEUE = "billing"


def plan(name: str = QUEUE, *keys: str, given: t.Any = None) -> QueuePlan:
    """The plan of a queue that is bound to the exchange by its name, or by ``keys``."""
    bound = () if given is not None else keys or (name,)
    return QueuePlan(
        name=name,
        consumer=name,
        type="classic",
        bindings=tuple(Binding(name, EXCHANGE, key) for key in bound),
        given=given,
    )


def settings(url: str, **config: t.Any) -> Settings:
    keys = {f"QCONSUME_{name.upper()}": value for name, value in config.items()}
    return Settings.from_config({"QCONSUME_BROKER_URL": url, **keys})


def outgoing(body: bytes = b"{}", **more: t.Any) -> Outgoing:
    """A message to the queue, with an id."""
    values = {"routing_key": QUEUE, "exchange": EXCHANGE, "id": str(uuid.uuid4())}
    return Outgoing(body=body, **{**values, **more})


class LinkedBroker:
    """A broker with its links, closed together."""

    def __init__(self, url: str, plans: t.Sequence[QueuePlan], **config: t.Any) -> None:
        self.url = url
        self.plan = plans[0]
        topology = Topology(EXCHANGE, tuple(plans))
        self.broker = open_broker(settings(url, **config), topology)
        self.client = _client(url)
        self._links: list[Link] = []

    def link(self, lane: Lane = Lane.MAIN, plan: QueuePlan | None = None) -> Link:
        link = self.broker.connect(plan or self.plan, lane, 100)
        self._links.append(link)
        return link

    def publish(self, *messages: Outgoing) -> None:
        """Publish; every one must be confirmed."""
        assert self.broker.publish(messages, 10.0) == [None] * len(messages)

    def fill(self, count: int) -> list[bytes]:
        """Publish that many; returns their bodies."""
        bodies = [str(number).encode() for number in range(count)]
        # In parts: the time-out is for a call, however much it publishes.
        for start in range(0, len(bodies), 1_000):
            self.publish(*map(outgoing, bodies[start : start + 1_000]))
        return bodies

    def depth(self, queue: str = QUEUE) -> int:
        return self.broker.depth(queue)

    def keys(self) -> set[str]:
        """All keys but the bindings."""
        found = {key.decode() for key in self.client.keys("*")}
        return {key for key in found if ".binding" not in key}

    def close(self) -> None:
        for link in self._links:
            link.close()
        self.broker.close()
        self.client.close()


def _client(url: str) -> t.Any:
    if "+cluster:" in url:
        first = url.rpartition("/")[2].partition(",")[0]
        return redis.RedisCluster.from_url(f"redis://{first}")
    return redis.Redis.from_url(url.replace("-streams:", ":"))


@contextlib.contextmanager
def linked_broker(
    url: str, *plans: QueuePlan, **config: t.Any
) -> t.Iterator[LinkedBroker]:
    made = LinkedBroker(url, plans or [plan()], **config)
    try:
        yield made
    finally:
        made.close()


def allow_long_waits(link: t.Any) -> t.Any:
    """A link that would wait for minutes, if nothing ended its waits."""
    link._blocking_wait.longest = 300.0
    if hasattr(link, "_wait_times"):
        link._wait_times._longest = 300.0
    return link


def do_not_poll_for(link: t.Any) -> t.Any:
    """A link whose waits no poll ends: the process that publishes must end them."""
    link._shared.poller.get().discard(link)
    return link


def read(link: Link, count: int, timeout: float = 10.0) -> list[Delivery]:
    """Read until there are that many, and no more than that."""
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(link.read(count - len(found)))
        return len(found) >= count

    wait_for(enough, timeout, message=lambda: f"{count} messages, got {len(found)}")
    return found


def bodies(deliveries: t.Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.raw for delivery in deliveries]


def forward(link: Link, delivery: Delivery, lane: Lane, **more: t.Any) -> t.Any:
    """Forward one message; returns why it did not arrive, or nothing."""
    headers = more.pop("headers", delivery.message.headers)
    return link.forward([Forward(delivery, lane, headers, **more)])[0]


@contextlib.contextmanager
def assert_reads(server, times: int):
    """Hold that Redis reads from its connections so many times in the block."""

    def reads() -> int:
        return int(server.command("INFO", "stats")["total_reads_processed"])

    before, first = reads(), reads()
    yield
    assert reads() - first - (first - before) == times
