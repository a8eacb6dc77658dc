"""What ends no wait is looked for by one, for all links of a process."""

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
from .tools import Shop
from .tools import bodies
from .tools import outgoing
from .tools import patient
from .tools import read
from .tools import shop


class Ear:
    """As much of a link as is told."""

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


def test_one_question_is_for_all_who_wait() -> None:
    redis = Redis()
    unseen = BlockedReaderPoller(redis, every=60.0)
    ears = [Ear("a"), Ear("b", waits=False), Ear("c")]
    for ear in ears:
        unseen.add(ear)
    unseen.look()
    assert redis.asked == [["a", "c"]]
    assert [ear.told for ear in ears] == [["a"], [], ["c"]]
    for ear in ears:
        ear.waits = False
        unseen.discard(ear)
    unseen.look()
    assert len(redis.asked) == 1


def test_an_error_is_nobody_s_news() -> None:
    redis, ears = Redis(), [Ear("a"), Ear("b")]
    redis.answers["a"] = BrokerError("a node is away")
    unseen = BlockedReaderPoller(redis, every=60.0)
    for ear in ears:
        unseen.add(ear)
    unseen.look()
    redis.error = BrokerUnavailable("all are away")
    unseen.look()
    assert [ear.told for ear in ears] == [[], ["b"]]
    for ear in ears:
        unseen.discard(ear)


def test_it_is_looked_as_long_as_anybody_is_there_and_again_later() -> None:
    redis, ear = Redis(), Ear("a")
    unseen = BlockedReaderPoller(redis, every=0.01)
    for _ in range(2):
        unseen.add(ear)
        before = len(ear.told)
        wait_for(lambda before=before: len(ear.told) > before + 2)
        unseen.discard(ear)
        wait_for(lambda: not unseen._runs)


# -- on a real Redis ------------------------------------------------------------------


@pytest.fixture(params=["redis", "redis-streams"])
def url(request: pytest.FixtureRequest, redis_url: str) -> str:
    return redis_url.replace("redis:", f"{request.param}:")


def reading(it: Shop) -> gevent.Greenlet:
    """Somebody who would wait for minutes, if nothing ended the wait."""
    link = patient(it.link())
    reader = gevent.spawn(read, link, 1)
    wait_for(lambda: int(it.client.info("clients")["blocked_clients"]) > 0)
    return reader


def test_a_delay_that_another_process_asked_for_ends_a_wait_in_time(url: str) -> None:
    with shop(url) as it, shop(url) as other:
        reader = reading(it)
        other.publish(outgoing(b"due", delay=2.0))
        other.publish(outgoing(b"soon", delay=0.1))
        # Far less than the wait would take.
        assert bodies(reader.get(timeout=10)) == [b"soon"]


def test_what_another_process_gives_back_ends_a_wait(url: str) -> None:
    with shop(url) as it, shop(url) as other:
        it.publish(outgoing(b"begun elsewhere"))
        link = other.link()
        read(link, 1)
        reader = reading(it)
        link.close()
        assert bodies(reader.get(timeout=10)) == [b"begun elsewhere"]


def test_a_low_priority_of_another_process_ends_a_wait(url: str) -> None:
    with shop(url) as it, shop(url) as other:
        reader = reading(it)
        other.publish(outgoing(b"low", priority=0))
        assert bodies(reader.get(timeout=10)) == [b"low"]


def test_what_is_due_after_the_wait_does_not_end_it(url: str) -> None:
    with shop(url) as it:
        link = patient(it.link())
        reader = gevent.spawn(link.read, 1)
        wait_for(lambda: int(it.client.info("clients")["blocked_clients"]) > 0)
        for answer in (b"", b"300.5", b"299.95"):
            link.note_poll_answer(answer)
        assert not link._woken
        link.note_poll_answer(b"100.0")
        assert reader.get(timeout=10) == []


def test_links_that_are_closed_are_looked_for_no_more(url: str) -> None:
    with shop(url) as it:
        unseen = t.cast(t.Any, it.broker)._shared.poller.get()
        links = [it.link(), it.link()]
        assert [*unseen._links] == links
        links[0].close()
        assert [*unseen._links] == links[1:]
        links[1].close()
        wait_for(lambda: not unseen._runs)
