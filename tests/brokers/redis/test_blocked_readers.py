"""Messages that do not wake a blocked reader are found by one poller per process."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

import gevent
import pytest

from flask_qconsume import BrokerError
from flask_qconsume import BrokerUnavailable
from flask_qconsume.brokers.redis.blocked_readers import BlockedReaderPoller
from flask_qconsume.brokers.redis.scripts import Call
from flask_qconsume.brokers.redis.scripts import Script

from ...waiting import wait_for
from .tools import LinkedBroker
from .tools import allow_long_waits
from .tools import bodies
from .tools import linked_broker
from .tools import outgoing
from .tools import read


class Reader:
    """Records the answers that the poller hands to a link."""

    def __init__(self, name: str, waits: bool = True) -> None:
        self.name = name
        self.waits = waits
        self.told: list[t.Any] = []

    def create_poll_call(self) -> Call | None:
        return Script("return")([], self.name) if self.waits else None

    def note_poll_answer(self, answer: t.Any) -> None:
        self.told.append(answer)


class Redis:
    """Answers each script with its argument, or as it is told to."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.answers: dict[str, t.Any] = {}
        self.error: BrokerError | None = None

    def __call__(self, calls: Sequence[Call]) -> list[t.Any]:
        names = [call.arguments[1] for call in calls]
        self.asked.append(names)
        if self.error is not None:
            raise self.error
        return [self.answers.get(name, name) for name in names]


def test_one_round_trip_asks_for_all_blocked_readers() -> None:
    redis = Redis()
    poller = BlockedReaderPoller(redis, interval=60.0)
    readers = [Reader("a"), Reader("b", waits=False), Reader("c")]
    for reader in readers:
        poller.add(reader)
    poller.poll()
    assert redis.asked == [["a", "c"]]
    assert [reader.told for reader in readers] == [["a"], [], ["c"]]
    for reader in readers:
        reader.waits = False
        poller.discard(reader)
    poller.poll()
    assert len(redis.asked) == 1


def test_an_error_is_handed_to_no_reader() -> None:
    redis, readers = Redis(), [Reader("a"), Reader("b")]
    redis.answers["a"] = BrokerError("a node is away")
    poller = BlockedReaderPoller(redis, interval=60.0)
    for reader in readers:
        poller.add(reader)
    poller.poll()
    redis.error = BrokerUnavailable("all are away")
    poller.poll()
    assert [reader.told for reader in readers] == [[], ["b"]]
    for reader in readers:
        poller.discard(reader)


def test_polling_ends_with_the_last_link_and_begins_again_with_the_next() -> None:
    redis, reader = Redis(), Reader("a")
    poller = BlockedReaderPoller(redis, interval=0.01)
    for _ in range(2):
        poller.add(reader)
        before = len(reader.told)
        wait_for(lambda before=before: len(reader.told) > before + 2)
        poller.discard(reader)
        wait_for(lambda: not poller._is_running)


# -- on a real Redis ------------------------------------------------------------------


@pytest.fixture(params=["redis", "redis-streams"])
def url(request: pytest.FixtureRequest, redis_url: str) -> str:
    return redis_url.replace("redis:", f"{request.param}:")


def spawn_reader(linked: LinkedBroker) -> gevent.Greenlet:
    """A reader that would wait for minutes if nothing ended the wait."""
    link = allow_long_waits(linked.link())
    reader = gevent.spawn(read, link, 1)
    wait_for(lambda: int(linked.client.info("clients")["blocked_clients"]) > 0)
    return reader


def test_a_delay_that_another_process_asked_for_ends_a_wait_in_time(url: str) -> None:
    with linked_broker(url) as linked, linked_broker(url) as other:
        reader = spawn_reader(linked)
        other.publish(outgoing(b"due", delay=2.0))
        other.publish(outgoing(b"soon", delay=0.1))
        # Far less than the wait would take.
        assert bodies(reader.get(timeout=10)) == [b"soon"]


def test_what_another_process_gives_back_ends_a_wait(url: str) -> None:
    with linked_broker(url) as linked, linked_broker(url) as other:
        linked.publish(outgoing(b"begun elsewhere"))
        link = other.link()
        read(link, 1)
        reader = spawn_reader(linked)
        link.close()
        assert bodies(reader.get(timeout=10)) == [b"begun elsewhere"]


def test_a_low_priority_of_another_process_ends_a_wait(url: str) -> None:
    with linked_broker(url) as linked, linked_broker(url) as other:
        reader = spawn_reader(linked)
        other.publish(outgoing(b"low", priority=0))
        assert bodies(reader.get(timeout=10)) == [b"low"]


def test_what_is_due_after_the_wait_does_not_end_it(url: str) -> None:
    with linked_broker(url) as linked:
        link = allow_long_waits(linked.link())
        reader = gevent.spawn(link.read, 1)
        wait_for(lambda: int(linked.client.info("clients")["blocked_clients"]) > 0)
        for answer in (b"", b"300.5", b"299.95"):
            link.note_poll_answer(answer)
        assert not link._blocking_wait._is_woken
        link.note_poll_answer(b"100.0")
        assert reader.get(timeout=10) == []


def test_closed_links_are_not_polled_for(url: str) -> None:
    with linked_broker(url) as linked:
        poller = t.cast(t.Any, linked.broker)._shared.poller.get()
        links = [linked.link(), linked.link()]
        assert [*poller._links] == links
        links[0].close()
        assert [*poller._links] == links[1:]
        links[1].close()
        wait_for(lambda: not poller._is_running)
