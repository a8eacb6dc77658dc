"""Heartbeats of several links share one round trip and one connection."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

import gevent
import pytest
from gevent.event import Event

from flask_qconsume import BrokerRefused
from flask_qconsume import BrokerUnavailable
from flask_qconsume.brokers.redis.grouped_scripts import GroupedScripts
from flask_qconsume.brokers.redis.scripts import Call
from flask_qconsume.brokers.redis.scripts import Script

from .tools import linked_broker
from .tools import plan


class Redis:
    """Answers when it is let, with the argument of each script."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.error: Exception | None = None
        self.begun = Event()
        self.answer = Event()

    def __call__(self, calls: Sequence[Call]) -> list[t.Any]:
        self.asked.append(len(calls))
        self.begun.set()
        self.answer.wait()
        if self.error is not None:
            raise self.error
        return [call.arguments[1] for call in calls]


def call(number: int) -> Call:
    return Script("return ARGV[1]")([], number)


def spawn_runs(
    scripts: GroupedScripts, redis: Redis, numbers: range, timeout: float = 30.0
) -> list[gevent.Greenlet]:
    """One link submits two scripts; while it waits, many other links do."""

    def ask(n: int) -> Sequence[t.Any]:
        return scripts.run([call(n), call(-n)], redis, timeout)

    first = gevent.spawn(ask, numbers[0])
    redis.begun.wait()
    others = [gevent.spawn(ask, number) for number in numbers[1:]]
    gevent.sleep(0)
    return [first, *others]


def test_scripts_submitted_during_a_round_trip_share_the_next_one() -> None:
    redis = Redis()
    asking = spawn_runs(GroupedScripts(), redis, range(1, 51))
    redis.answer.set()
    found = [each.get(timeout=10) for each in asking]
    assert found == [[n, -n] for n in range(1, 51)]
    assert redis.asked == [2, 98]


def test_each_has_the_error_as_its_own() -> None:
    redis = Redis()
    redis.error = BrokerRefused("wrong password")
    asking = spawn_runs(GroupedScripts(), redis, range(1, 4))
    redis.answer.set()
    gevent.joinall(asking, timeout=10)
    errors = [each.exception for each in asking]
    assert [str(error) for error in errors] == ["wrong password"] * 3
    assert {type(error) for error in errors} == {BrokerRefused}
    assert len({id(error) for error in errors}) == 3


def test_a_link_waits_for_the_round_trips_of_other_links_up_to_its_timeout() -> None:
    redis = Redis()
    first, other = spawn_runs(GroupedScripts(), redis, range(1, 3), timeout=0.05)
    with pytest.raises(BrokerUnavailable, match="heartbeat"):
        other.get(timeout=10)
    redis.answer.set()
    assert first.get(timeout=10) == [1, -1]


@pytest.mark.parametrize("kind", ["redis", "redis-streams"])
def test_many_links_are_kept_alive_by_one_connection(own_redis, kind: str) -> None:
    queues = [plan(f"queue-{number}") for number in range(20)]
    url = own_redis.url.replace("redis:", f"{kind}:")
    with linked_broker(url, *queues) as linked:
        links = [linked.link(plan=queue) for queue in queues]
        before = linked.client.info("clients")["connected_clients"]
        for _ in range(3):
            greenlets = [gevent.spawn(link.keep_alive) for link in links]
            gevent.joinall(greenlets, timeout=10, raise_error=True)
        after = linked.client.info("clients")["connected_clients"]
        assert after <= before + 1


def test_each_keep_alive_extends_all_leases(own_redis) -> None:
    queues = [plan(f"queue-{number}") for number in range(5)]
    with linked_broker(own_redis.url, *queues, lease=3.0) as linked:
        links = [linked.link(plan=queue) for queue in queues]
        for queue in queues:
            linked.client.lpush(queue.name, b"held")
        tags = [delivery.tag for link in links for delivery in link.read(1)]

        def leases() -> list[float]:
            keys = [f"{queue.name}.leases" for queue in queues]
            return [
                linked.client.zscore(k, tag) for k, tag in zip(keys, tags, strict=True)
            ]

        before = leases()
        beats = [gevent.spawn(link.keep_alive) for link in links]
        gevent.joinall(beats, raise_error=True)
        assert all(new > old for new, old in zip(leases(), before, strict=True))
