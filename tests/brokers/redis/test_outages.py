"""Workers that die, and a Redis that goes away, hangs, or is full."""

from __future__ import annotations

import subprocess
import sys
import time

import gevent
import pytest

from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import LeaseLost
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import PublishRefused

from ...servers import Redis
from ...waiting import wait_for
from .tools import LinkedBroker
from .tools import bodies
from .tools import forward
from .tools import linked_broker
from .tools import outgoing
from .tools import read

#: Reads messages, notes them in Redis, and acknowledges them.
CONSUMER = """
import sys, threading
from tests.brokers.redis.tools import linked_broker
with linked_broker(sys.argv[1], lease=1.0) as linked:
    link = linked.link()
    def keep_alive():
        while True:
            link.keep_alive()
            threading.Event().wait(link.keep_alive_interval)
    threading.Thread(target=keep_alive, daemon=True).start()
    while True:
        found = link.read(50)
        for delivery in found:
            marked = b"!" if delivery.message.redelivered else b""
            linked.client.rpush("handled", delivery.message.raw + marked)
        link.ack(found)
"""


@pytest.fixture(params=["redis:", "redis-streams:"])
def at(request):
    """Makes the URL of lists, and that of streams."""
    return lambda url: url.replace("redis:", request.param)


@pytest.mark.deadline(180)
def test_ten_kills_of_a_consumer_lose_nothing(redis_url):
    with linked_broker(redis_url, lease=1.0) as linked:
        sent = set(linked.fill(5_000))
        for _ in range(10):
            kill_after(redis_url, linked, 300)
        link = linked.link()
        rest = []
        while linked.depth() or linked.client.hlen("unacked"):
            found = link.read(500)
            rest += found
            link.ack(found)
            link.keep_alive()
        handled = linked.client.lrange("handled", 0, -1)
        seen = {entry.rstrip(b"!") for entry in handled} | set(bodies(rest))
        assert seen == sent
        # More than once only what a killed one held, a batch at most.
        assert len(handled) + len(rest) - len(sent) <= 10 * 50
        assert any(entry.endswith(b"!") for entry in handled) or any(
            delivery.message.redelivered for delivery in rest
        )


def kill_after(url: str, linked: LinkedBroker, count: int) -> None:
    """Let a consumer handle some messages, and kill it at once."""
    before = linked.client.llen("handled")
    command = [sys.executable, "-W", "ignore", "-c", CONSUMER, url]
    with subprocess.Popen(command) as process:
        try:
            wait_for(
                lambda: linked.client.llen("handled") >= before + count,
                timeout=30,
                interval=0.001,
            )
        finally:
            process.kill()


def test_held_messages_stay_held_while_the_link_is_kept_alive(redis_url):
    with linked_broker(redis_url, lease=1.0) as linked:
        linked.fill(1)
        link, other = linked.link(), linked.link()
        held = read(link, 1)
        assert link.keep_alive_interval == pytest.approx(1 / 3)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            link.keep_alive()
            other.keep_alive()
            assert other.read(1) == []
        link.ack(held)
        assert linked.keys() == set()


def test_messages_with_ended_leases_come_back_marked_and_a_late_ack_is_harmless(
    redis_url,
):
    with linked_broker(redis_url, lease=1.0) as linked:
        sent = linked.fill(5)
        silent, other = linked.link(), linked.link()
        held = read(silent, 5)
        wait_for(lambda: (other.keep_alive(), linked.depth() == 5)[1], timeout=5)
        again = read(other, 5)
        assert bodies(again) == sent
        assert all(delivery.message.redelivered for delivery in again)
        assert {d.message.id for d in again} == {d.message.id for d in held}
        assert isinstance(forward(silent, held[0], Lane.DEAD), LeaseLost)
        silent.ack(held[1:])
        assert linked.client.hlen("unacked") == 5
        silent.close()
        assert linked.depth() == 0
        other.ack(again)
        assert linked.keys() == set()


def test_leases_that_end_are_restored_under_load_too(redis_url, at):
    with linked_broker(at(redis_url), lease=1.0) as linked:
        linked.publish(outgoing(b"left behind"))
        silent = linked.link()
        read(silent, 1)
        busy = linked.link()
        seen: list[bytes] = []

        def more() -> bool:
            linked.fill(20)
            found = busy.read(20)
            seen.extend(bodies(found))
            busy.ack(found)
            busy.keep_alive()
            return b"left behind" in seen

        wait_for(more, timeout=10, interval=0.001)


def test_a_restored_foreign_message_has_its_body_and_its_mark(redis_url):
    with linked_broker(redis_url, lease=1.0) as linked:
        linked.client.lpush("billing", b"\xff{")
        silent, other = linked.link(), linked.link()
        read(silent, 1)
        wait_for(lambda: (other.keep_alive(), linked.depth() == 1)[1], timeout=5)
        message = read(other, 1)[0].message
        assert (message.raw, message.redelivered, message.id) == (b"\xff{", True, None)


def test_a_link_ends_with_redis_and_a_new_one_goes_on_at_once(own_redis, at):
    with linked_broker(at(own_redis.url)) as linked:
        sent = linked.fill(20)
        link = linked.link()
        held = read(link, 10)
        link.ack(held[:5])
        reader = gevent.spawn(link.read, 5)
        own_redis.restart()
        with pytest.raises(BrokerUnavailable):
            while True:
                reader.get(timeout=5)
                reader = gevent.spawn(link.read, 5)
        assert link.closed
        link.close()
        again = read(linked.link(), 15)
        assert sorted(bodies(again), key=int) == sent[5:]
        assert not any(delivery.message.redelivered for delivery in again)


def test_what_a_link_held_while_redis_is_away_comes_back_with_the_next_link(
    own_redis, at
):
    with linked_broker(at(own_redis.url)) as linked:
        sent = linked.fill(10)
        link = linked.link()
        held = read(link, 10)
        own_redis.stop()
        with pytest.raises(BrokerUnavailable):
            link.ack(held)
        assert held[0].stale
        link.close()
        with pytest.raises(BrokerUnavailable):
            linked.link()
        own_redis.start()
        again = read(linked.link(), 10)
        assert bodies(again) == sent
        assert not any(delivery.message.redelivered for delivery in again)


def test_publishing_goes_on_over_a_restart(own_redis, at):
    with linked_broker(at(own_redis.url)) as linked:
        linked.publish(outgoing())
        going_on = True
        results: list = []

        def publish() -> None:
            while going_on:
                results.extend(
                    linked.broker.publish([outgoing() for _ in range(5)], 20)
                )
                gevent.sleep(0)

        publishers = [gevent.spawn(publish) for _ in range(5)]

        def fifty_more() -> None:
            enough = len(results) + 50
            wait_for(lambda: len(results) > enough, timeout=20)

        for _ in range(2):
            fifty_more()
            own_redis.restart()
        fifty_more()
        going_on = False
        gevent.joinall(publishers, timeout=20, raise_error=True)
        assert set(results) == {None}
        assert linked.depth() >= len(results) + 1


@pytest.mark.process
def test_what_was_confirmed_outlives_a_kill_of_redis_with_an_append_only_file(
    tmp_path, at
):
    options = {"appendfsync": "always"}
    with (
        Redis(tmp_path / "redis", options=options) as server,
        linked_broker(at(server.url)) as linked,
    ):
        sent = linked.fill(200)
        linked.publish(outgoing(b"later", delay=0.5))
        link = linked.link()
        read(link, 50)
        server.kill()
        server.start()
        link.close()
        again = read(linked.link(), 201)
        assert bodies(again) == [*sent, b"later"]


def test_a_redis_that_hangs_ends_the_link_after_two_heartbeats(own_redis, at):
    with linked_broker(at(own_redis.url), heartbeat=1.0) as linked:
        link = linked.link()
        assert link.read(1) == []
        started = time.monotonic()
        with own_redis.frozen():
            with pytest.raises(BrokerUnavailable):
                link.read(1)
            assert time.monotonic() - started < 4
            link.close()
            assert time.monotonic() - started < 10


def test_closing_a_link_to_a_redis_that_hangs_does_not_hang(own_redis, at):
    with linked_broker(at(own_redis.url)) as linked:
        linked.fill(5)
        link = linked.link()
        read(link, 5)
        with own_redis.frozen():
            reader = gevent.spawn(link.read, 1)
            gevent.sleep(0)
            started = time.monotonic()
            link.close()
            assert time.monotonic() - started < 10
            assert reader.get(timeout=1) == []
        assert len(read(linked.link(), 5)) == 5


def test_a_full_redis_refuses_publishing_and_lets_consuming_go_on(own_redis, at):
    with linked_broker(at(own_redis.url)) as linked:
        linked.publish(*[outgoing(b"x" * 1_000) for _ in range(100)])
        own_redis.command("CONFIG", "SET", "maxmemory", "1")
        error = linked.broker.publish([outgoing()], 2.0)[0]
        assert isinstance(error, PublishRefused)
        assert "memory" in str(error)
        link = linked.link()
        found = read(link, 100)
        link.keep_alive()
        assert forward(link, found[0], Lane.MAIN) is None
        assert forward(link, found[1], Lane.MAIN, delay=0.1) is None
        assert forward(link, found[2], Lane.DEAD, expires=60.0) is None
        link.ack(found[3:90])
        link.close()
        assert linked.depth() in (11, 12)
        assert linked.broker.dead_letters(linked.plan).count() == 1
        link = linked.link()
        link.ack(read(link, 12))
        assert (
            linked.broker.dead_letters(linked.plan).take(lambda letter: True, True) == 1
        )


def test_a_read_only_redis_is_an_outage(own_redis, at):
    with linked_broker(at(own_redis.url)) as linked:
        linked.fill(3)
        own_redis.command("REPLICAOF", "127.0.0.1", "1")
        link = linked.link()
        with pytest.raises(BrokerUnavailable):
            link.read(1)
        assert link.closed
        assert isinstance(
            linked.broker.publish([outgoing()], 0.3)[0], BrokerUnavailable
        )
        own_redis.command("REPLICAOF", "NO", "ONE")
        assert len(read(linked.link(), 3)) == 3


def test_a_key_of_another_type_ends_a_link_and_loses_nothing(redis_url):
    for key in ("unacked", "unacked_index", "billing.leases", "billing.delayed"):
        with linked_broker(redis_url) as linked:
            linked.client.delete(key)
            linked.client.delete("billing")
            sent = linked.fill(3)
            linked.client.set(key, "somebody else's")
            link = linked.link()
            with pytest.raises(BrokerError, match="another program|something else"):
                link.read(3)
            link.close()
            linked.client.delete(key)
            assert sorted(bodies(read(linked.link(), 3))) == sent


def test_a_script_that_redis_forgot_is_sent_again(redis_url):
    with linked_broker(redis_url) as linked:
        link = linked.link()
        for _ in range(2):
            linked.client.script_flush()
            linked.publish(outgoing())
            link.ack(read(link, 1))


def test_twenty_thousand_messages_are_drained_in_seconds(redis_url, capsys):
    """Lists and streams, one after the other."""
    rates = {}
    for scheme in ("redis:", "redis-streams:"):
        with linked_broker(redis_url.replace("redis:", scheme)) as linked:
            linked.fill(20_000)
            rates[scheme] = measure_drain(linked, 20_000)
            linked.client.flushdb()
    lists, streams = rates.values()
    with capsys.disabled():
        print(f" {lists:,.0f} messages/s read and acknowledged from lists, ", end="")
        print(f"{streams:,.0f} from streams, {streams / lists:.1f} times ", end="")


def measure_drain(linked, wanted: int) -> float:
    """Read and acknowledge that many; returns how many a second."""
    link, count = linked.link(), 0
    started = time.monotonic()
    while count < wanted:
        found = link.read(200)
        link.ack(found)
        count += len(found)
    rate = count / (time.monotonic() - started)
    assert linked.depth() == 0
    return rate
