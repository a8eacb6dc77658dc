"""Leases, delays and dead letters survive a clock that is set."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest

from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link

from ..brokers.redis.tools import bodies
from ..brokers.redis.tools import forward
from ..brokers.redis.tools import linked_broker
from ..brokers.redis.tools import outgoing
from ..brokers.redis.tools import read
from ..fleet.clock import Clock
from ..servers import Redis
from ..servers.fixtures import refuse
from ..waiting import wait_for

HOUR = 3_600.0

both = pytest.mark.parametrize("scheme", ["redis:", "redis-streams:"])


@pytest.fixture
def clock(tmp_path: pathlib.Path) -> Clock:
    if reason := Clock.missing():
        refuse(reason)
    return Clock(tmp_path / "clock")


@pytest.fixture
def redis_clocked(tmp_path: pathlib.Path, clock: Clock) -> t.Iterator[Redis]:
    """A Redis server whose clock a test can set."""
    if reason := Redis.missing():
        refuse(reason)
    with Redis(tmp_path / "redis", environment=clock.environment()) as server:
        yield server


@pytest.mark.parametrize("step", [HOUR, -HOUR])
@both
def test_a_dead_workers_messages_come_back_after_the_clock_of_redis_was_set(
    redis_clocked: Redis, clock: Clock, scheme: str, step: float
) -> None:
    with linked_broker(
        redis_clocked.url.replace("redis:", scheme), lease=1.0
    ) as linked:
        sent = linked.fill(5)
        silent, other = linked.link(), linked.link()
        read(silent, 5)
        clock.step(step)
        wait_for(
            lambda: (other.keep_alive(), linked.depth() == 5)[1],
            timeout=60,
            interval=0.3,
        )
        again = read(other, 5)
        assert bodies(again) == sent
        assert all(delivery.message.redelivered for delivery in again)


@both
def test_what_a_live_worker_holds_stays_its_own_when_the_clock_is_set_back(
    redis_clocked: Redis, clock: Clock, scheme: str
) -> None:
    with linked_broker(
        redis_clocked.url.replace("redis:", scheme), lease=1.0
    ) as linked:
        linked.fill(5)
        link, other = linked.link(), linked.link()
        held = read(link, 5)
        clock.step(-HOUR)
        until = time.monotonic() + 3.5 * Link.keep_alive_interval
        while time.monotonic() < until:
            link.keep_alive()
            other.keep_alive()
            assert other.read(1) == []
        link.ack(held)
        assert linked.depth() == 0


@both
def test_a_dead_letter_is_kept_when_the_clock_is_set_by_less_than_it_is_kept_for(
    redis_clocked: Redis, clock: Clock, scheme: str
) -> None:
    with linked_broker(redis_clocked.url.replace("redis:", scheme)) as linked:
        linked.publish(outgoing(b"1"), outgoing(b"2"))
        link = linked.link()
        first, second = read(link, 2)
        assert forward(link, first, Lane.DEAD, expires=2 * HOUR) is None
        clock.step(HOUR)
        assert forward(link, second, Lane.DEAD, expires=2 * HOUR) is None
        assert linked.broker.dead_letters(linked.plan).count() == 2
        clock.step(-HOUR)
        assert linked.broker.dead_letters(linked.plan).count() == 2
