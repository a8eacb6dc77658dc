"""Streams read, settled and given back, on a real Redis."""

from __future__ import annotations

import gevent
import pytest

from flask_qconsume.broker import headers
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import LeaseLost
from flask_qconsume.errors import TopologyMismatch

from ...waiting import wait_for
from ..redis.tools import allow_long_waits
from ..redis.tools import assert_reads
from ..redis.tools import bodies
from ..redis.tools import do_not_poll_for
from ..redis.tools import forward
from ..redis.tools import linked_broker
from ..redis.tools import outgoing
from ..redis.tools import read


@pytest.fixture
def url(redis_url):
    return redis_url.replace("redis:", "redis-streams:")


def pending(linked, queue="billing"):
    """How many entries each consumer of the group has."""
    found = linked.client.xpending(queue, "qconsume")["consumers"]
    return {each["name"].decode(): each["pending"] for each in found}


def stall(linked, delivery):
    """Let an entry look as if its consumer were not heard of for long."""
    id = delivery.tag.partition(":")[2]
    (found,) = linked.client.xpending_range("billing", "qconsume", id, id, 1)
    linked.client.xclaim(
        "billing", "qconsume", found["consumer"], 0, [id], idle=10**6, justid=True
    )


def is_waiting(linked) -> bool:
    return int(linked.client.info("clients")["blocked_clients"]) > 0


def test_messages_are_read_in_their_order_and_gone_once_acknowledged(url):
    with linked_broker(url) as linked:
        sent = linked.fill(300)
        link = linked.link()
        found = read(link, 300)
        assert bodies(found) == sent
        assert sum(pending(linked).values()) == 300
        assert linked.depth() == 0
        link.ack(found)
        assert pending(linked) == {}
        assert linked.client.xlen("billing") == 0


def test_no_more_is_given_than_there_is_room_for_after_a_wait_either(url):
    with linked_broker(url) as linked:
        link = linked.link()
        reader = gevent.spawn(read, link, 1)
        wait_for(lambda: is_waiting(linked))
        # In one step, so that the wait ends with one of each stream.
        linked.publish(*(outgoing(b"%d" % n, priority=n) for n in (0, 3, 6, 9)))
        assert len(reader.get(timeout=5)) == 1
        assert len(read(link, 3)) == 3


def test_a_large_message_is_not_read_with_many_more(url):
    with linked_broker(url) as linked:
        linked.publish(*[outgoing(b"x" * 500_000) for _ in range(10)])
        found = linked.link().read(10)
        assert 1 <= len(found) < 10


def test_closing_gives_everything_back_unmarked_and_in_order(url):
    with linked_broker(url) as linked:
        sent = linked.fill(20)
        link = linked.link()
        found = read(link, 10)
        link.ack(found[3:5])
        link.close()
        assert all(delivery.stale for delivery in found)
        assert pending(linked) == {"released": 8}
        assert linked.depth() == 18
        again = read(linked.link(), 18)
        assert bodies(again) == sent[:3] + sent[5:]
        assert not any(delivery.message.redelivered for delivery in again)


def test_what_was_given_back_stays_unmarked_however_long_it_lies(url):
    with linked_broker(url, lease=2) as linked:
        linked.fill(1)
        link = linked.link()
        delivery = read(link, 1)[0]
        link.close()
        stall(linked, delivery)
        other = linked.link()
        other.keep_alive()
        assert pending(linked) == {"released": 1}
        assert not read(other, 1)[0].message.redelivered


def test_released_messages_reach_another_consumer_at_once_unmarked_and_in_order(url):
    with linked_broker(url) as linked:
        sent = linked.fill(10)
        link = linked.link()
        found = read(link, 10)
        link.pause()
        link.release(found[4:])
        again = read(linked.link(), 6)
        assert bodies(again) == sent[4:]
        assert not any(delivery.message.redelivered for delivery in again)
        link.close()
        assert linked.depth() == 4


def test_a_closed_link_leaves_no_consumer_behind(url):
    with linked_broker(url) as linked:
        linked.fill(2)
        for _ in range(3):
            link = linked.link()
            link.ack(read(link, 1)[:0])
            link.close()
        names = {
            c["name"] for c in linked.client.xinfo_consumers("billing", "qconsume")
        }
        assert names == {b"released"}


def test_what_is_fetched_while_a_close_begins_is_not_lost(url):
    with linked_broker(url) as linked:
        sent = linked.fill(200)
        for _ in range(20):
            link = linked.link()
            reader = gevent.spawn(link.read, 7)
            gevent.sleep(0)
            link.close()
            reader.get(timeout=5)
        assert linked.depth() == 200
        assert bodies(read(linked.link(), 200)) == sent


def test_keeping_an_idle_link_alive_asks_redis_once(own_redis):
    with linked_broker(own_redis.url.replace("redis:", "redis-streams:")) as linked:
        link = linked.link()
        link.keep_alive()  # It connects, and tells Redis the scripts.
        with assert_reads(own_redis, 1):
            link.keep_alive()


def test_a_redis_that_forgot_the_scripts_is_told_them_again(own_redis):
    with linked_broker(own_redis.url.replace("redis:", "redis-streams:")) as linked:
        link = linked.link()
        reader = gevent.spawn(read, link, 2)
        wait_for(lambda: is_waiting(linked))
        linked.client.script_flush()
        linked.client.xadd("billing", {"body": b"1"})
        linked.client.xadd("billing", {"body": b"2"})
        assert bodies(reader.get(timeout=5)) == [b"1", b"2"]


def test_a_suspect_comes_alone_after_a_wait_too(url):
    with linked_broker(url) as linked:
        lane = linked.link(Lane.SUSPECTS)
        reader = gevent.spawn(read, lane, 1)
        wait_for(lambda: is_waiting(linked))
        pipe = linked.client.pipeline(transaction=True)
        for body in (b"1", b"2", b"3"):
            pipe.xadd("{billing}.suspects", {"body": body})
        pipe.execute()
        assert bodies(reader.get(timeout=5)) == [b"1"]
        assert sum(pending(linked, "{billing}.suspects").values()) == 1


def test_a_new_message_ends_a_wait(url):
    with linked_broker(url) as linked:
        link = allow_long_waits(linked.link())
        for n in range(10):
            reader = gevent.spawn(read, link, 1)
            wait_for(lambda: is_waiting(linked), interval=0.001)
            linked.publish(outgoing(priority=n))
            link.ack(reader.get(timeout=5))


def test_what_a_dead_worker_held_comes_marked_and_in_order(url):
    with linked_broker(url, lease=2) as linked:
        linked.fill(5)
        dead, alive = linked.link(), linked.link()
        for delivery in read(dead, 3):
            stall(linked, delivery)
        alive.keep_alive()
        found = read(alive, 5)
        assert bodies(found) == [b"0", b"1", b"2", b"3", b"4"]
        assert [d.message.redelivered for d in found] == [True] * 3 + [False] * 2
        # An entry that another worker has now is reported as lost, and forgotten.
        assert dead.closed is False
        alive.ack(found)


def test_a_mark_outlives_a_clean_close(url):
    with linked_broker(url, lease=2) as linked:
        linked.fill(2)
        dead, second = linked.link(), linked.link()
        stall(linked, read(dead, 1)[0])
        second.keep_alive()
        read(second, 2)
        second.close()
        marks = [d.message.redelivered for d in read(linked.link(), 2)]
        assert sorted(marks) == [False, True]


def test_leases_are_extended_while_the_link_is_kept_alive(url):
    with linked_broker(url, lease=2) as linked:
        linked.fill(1200)
        link, other = linked.link(), linked.link()
        found = read(link, 1200)
        stall(linked, found[0])
        stall(linked, found[1199])
        link.keep_alive()
        other.keep_alive()
        assert set(pending(linked).values()) == {1200}
        idle = linked.client.xpending_range("billing", "qconsume", "-", "+", 1200)
        assert max(each["time_since_delivered"] for each in idle) < 2000
        assert {each["times_delivered"] for each in idle} == {1}


def test_dead_workers_are_found_behind_thousands_that_live(url):
    with linked_broker(url, lease=2) as linked:
        linked.fill(1300)
        living, dead, third = linked.link(), linked.link(), linked.link()
        kept = read(living, 1299)
        # The living one is slow too: all of its entries are beyond their leases.
        stall(linked, read(dead, 1)[0])
        living.close()
        for delivery in kept:
            stall(linked, delivery)
        third.keep_alive()
        third.keep_alive()
        found = read(third, 1300)
        assert [d.message.redelivered for d in found].count(True) == 1
        assert found[-1].message.redelivered


def test_forwarding_to_suspects_is_read_by_their_link(url):
    with linked_broker(url) as linked:
        linked.publish(outgoing(b"[1]", priority=9))
        main, suspects = linked.link(), linked.link(Lane.SUSPECTS)
        first = read(main, 1)[0]
        copied = headers.make_suspect_headers(first.message, 1, 1.0)
        assert forward(main, first, Lane.SUSPECTS, headers=copied) is None
        assert linked.depth("billing.suspects") == 1
        found = read(suspects, 1)[0]
        assert found.message.deaths == 1
        assert not found.message.redelivered
        copied = headers.make_retry_headers(found.message, 2)
        assert forward(suspects, found, Lane.MAIN, headers=copied, delay=0.05) is None
        again = read(main, 1)[0].message
        assert (again.attempt, again.priority) == (2, 9)


def test_a_message_that_another_worker_has_is_not_forwarded(url):
    with linked_broker(url) as linked:
        linked.publish(outgoing())
        link = linked.link()
        delivery = read(link, 1)[0]
        id = delivery.tag.partition(":")[2]
        linked.client.xclaim("billing", "qconsume", "somebody", 0, [id])
        assert isinstance(forward(link, delivery, Lane.DEAD), LeaseLost)
        assert forward(link, delivery, Lane.DEAD) is None  # It was told once.
        assert linked.broker.dead_letters(linked.plan).count() == 0
        assert not link.closed


def test_forwarding_many_at_once_reports_on_each(url):
    with linked_broker(url) as linked:
        linked.fill(3)
        link = linked.link()
        found = read(link, 3)
        linked.client.xack("billing", "qconsume", found[1].tag.partition(":")[2])
        results = link.forward([Forward(each, Lane.MAIN, {}) for each in found])
        assert [type(each) for each in results] == [type(None), LeaseLost, type(None)]
        assert bodies(read(link, 2)) == [b"0", b"2"]


def test_a_delay_shorter_than_a_wait_ends_it(url):
    with linked_broker(url) as linked:
        link = do_not_poll_for(allow_long_waits(linked.link()))
        reader = gevent.spawn(read, link, 1)
        wait_for(lambda: is_waiting(linked))
        linked.publish(outgoing(delay=0.2))
        assert len(reader.get(timeout=20)) == 1


def test_delayed_messages_that_are_the_same_are_not_one(url):
    with linked_broker(url) as linked:
        same = outgoing(b"[1]", id=None, delay=0.05, timestamp=1.0)
        linked.publish(same, same)
        assert bodies(read(linked.link(), 2)) == [b"[1]", b"[1]"]


def test_nine_is_read_first_and_no_priority_counts_as_none(url):
    with linked_broker(url) as linked:
        for priority in (0, 4, None, 9):
            delay = 0.05 if priority == 4 else 0.0
            body = str(priority).encode()
            linked.publish(outgoing(body, priority=priority, delay=delay))
        wait_for(lambda: linked.client.time()[0] and is_due(linked))
        found = read(linked.link(), 4)
        assert bodies(found) == [b"9", b"4", b"0", b"None"]
        assert [each.message.priority for each in found] == [9, 4, 0, None]


def is_due(linked) -> bool:
    seconds, micro = linked.client.time()
    now = seconds + micro / 1e6
    return linked.client.zcount("{billing}.delayed", "-inf", now) == 1


def test_a_message_given_back_keeps_its_priority(url):
    with linked_broker(url) as linked:
        linked.publish(outgoing(b"low", priority=0))
        link = linked.link()
        read(link, 1)
        link.close()
        linked.publish(outgoing(b"high", priority=9))
        assert bodies(read(linked.link(), 2)) == [b"high", b"low"]


def test_an_entry_that_another_program_deleted_is_skipped(url):
    with linked_broker(url) as linked:
        linked.fill(3)
        link = linked.link()
        found = read(link, 2)
        link.close()
        linked.client.xdel("billing", found[0].tag.partition(":")[2])
        assert bodies(read(linked.link(), 2)) == [b"1", b"2"]
        assert sum(pending(linked).values()) == 2


def test_consuming_goes_on_after_everything_was_flushed(url):
    with linked_broker(url) as linked:
        link = linked.link()
        linked.fill(1)
        link.ack(read(link, 1))
        reader = gevent.spawn(read, link, 1)
        wait_for(lambda: is_waiting(linked))
        linked.client.flushdb()
        linked.publish(outgoing(b"after"))
        found = reader.get(timeout=5)
        assert bodies(found) == [b"after"]
        link.keep_alive()
        linked.client.flushdb()
        link.keep_alive()
        link.ack(found)
        linked.publish(outgoing(b"again"))
        assert bodies(read(link, 1)) == [b"again"]
        assert not link.closed


def test_a_key_of_another_type_is_said_to_be_so(url):
    with linked_broker(url) as linked:
        linked.client.lpush("billing", "a kombu envelope")
        with pytest.raises(TopologyMismatch, match="is a list, not a stream"):
            linked.broker.declare()
