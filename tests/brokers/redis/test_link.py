"""Reading, settling and giving back, on a real Redis."""

from __future__ import annotations

import json

import gevent

from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import LeaseLost

from ...waiting import wait_for
from .tools import allow_long_waits
from .tools import assert_reads
from .tools import bodies
from .tools import do_not_poll_for
from .tools import forward
from .tools import linked_broker
from .tools import outgoing
from .tools import read


def test_messages_are_read_in_their_order_and_gone_once_acknowledged(redis_url):
    with linked_broker(redis_url) as linked:
        sent = linked.fill(300)
        link = linked.link()
        found = read(link, 300)
        assert bodies(found) == sent
        assert linked.client.hlen("unacked") == 300
        link.ack(found)
        assert linked.keys() == set()


def test_an_element_that_kombus_json_cannot_read_blocks_no_message(redis_url):
    headers = {"x": {"__type__": "bytes", "__value__": 5}}
    properties = {"delivery_tag": "t", "body_encoding": "utf-8"}
    element = {"body": "bad", "headers": headers, "properties": properties}
    with linked_broker(redis_url) as linked:
        linked.client.lpush("billing", json.dumps(element), b"good")
        link = linked.link()
        found = read(link, 2)
        assert bodies(found) == [b"bad", b"good"]
        assert forward(link, found[0], Lane.DEAD) is None
        assert linked.broker.dead_letters(linked.plan).count() == 1


def nested(depth):
    found = "x"
    for _ in range(depth):
        found = [found]
    return found


def test_a_copy_that_cannot_be_written_goes_without_what_it_cannot_carry(redis_url):
    """A header that was read may be too deep to be written from another stack."""
    deep = nested(100_000)
    with linked_broker(redis_url) as linked:
        linked.publish(outgoing(b"1", properties={"correlation_id": "c"}))
        link = linked.link()
        (found,) = read(link, 1)
        found.message.properties["reply_to"] = deep
        headers = {"deep": deep, "y": 1, "n": None}
        assert forward(link, found, Lane.DEAD, headers=headers) is None
        (letter,) = linked.broker.dead_letters(linked.plan)
        assert letter.message.raw == b"1"
        assert letter.message.properties == {"correlation_id": "c"}
        assert letter.message.headers["y"] == 1
        assert letter.headers["x-qconsume-changed-headers"] == "deep"


def test_a_large_message_is_not_read_with_many_more(redis_url):
    with linked_broker(redis_url) as linked:
        linked.publish(*[outgoing(b"x" * 500_000) for _ in range(10)])
        found = linked.link().read(10)
        assert 1 <= len(found) < 10


def test_closing_gives_everything_back_unmarked_to_the_front(redis_url):
    with linked_broker(redis_url) as linked:
        sent = linked.fill(20)
        link = linked.link()
        found = read(link, 10)
        link.ack(found[3:5])
        link.close()
        assert all(delivery.stale for delivery in found)
        assert linked.keys() == {"billing"}
        again = read(linked.link(), 18)
        assert bodies(again) == sent[:3] + sent[5:]
        assert not any(delivery.message.redelivered for delivery in again)


def test_released_messages_reach_another_consumer_at_once_unmarked_and_in_order(
    redis_url,
):
    with linked_broker(redis_url) as linked:
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


def test_what_is_fetched_while_a_close_begins_is_not_lost(redis_url):
    with linked_broker(redis_url) as linked:
        sent = linked.fill(200)
        seen = []
        for _ in range(20):
            link = linked.link()
            reader = gevent.spawn(link.read, 7)
            gevent.sleep(0)
            link.close()
            seen.append(reader.get(timeout=5))
        assert linked.depth() == 200
        assert bodies(read(linked.link(), 200)) == sent


def test_a_new_message_ends_a_wait(redis_url):
    with linked_broker(redis_url) as linked:
        link = allow_long_waits(linked.link())
        for _ in range(10):
            reader = gevent.spawn(read, link, 1)
            wait_for(lambda: is_waiting(linked), interval=0.001)
            linked.publish(outgoing())
            link.ack(reader.get(timeout=5))


def test_an_idle_link_asks_redis_once_a_wait(own_redis):
    with linked_broker(own_redis.url) as linked:
        link = linked.link()
        link._wait_times._longest = 0.1
        assert link.read(1) == []  # It looks first, and waits then.
        with assert_reads(own_redis, 3):
            for _ in range(3):
                assert link.read(1) == []


def test_keeping_an_idle_link_alive_asks_redis_once(own_redis):
    with linked_broker(own_redis.url) as linked:
        link = linked.link()
        link.keep_alive()  # It connects, and tells Redis the scripts.
        with assert_reads(own_redis, 1):
            link.keep_alive()


def test_what_ends_a_wait_is_brought_by_it(own_redis):
    with linked_broker(own_redis.url) as linked:
        link = allow_long_waits(linked.link())
        link._shared.poller.get().discard(link)  # Who looks for it would ask, too.
        reader = gevent.spawn(link.read, 1)
        wait_for(lambda: is_waiting(linked))
        with assert_reads(own_redis, 1):  # The push.
            linked.client.lpush("billing", b"1")
            assert bodies(reader.get(timeout=5)) == [b"1"]


def test_a_redis_that_forgot_the_scripts_is_told_them_again(own_redis):
    """After a wait, too, when the script was sent before they were forgotten."""
    with linked_broker(own_redis.url) as linked:
        link = linked.link()
        reader = gevent.spawn(read, link, 2)
        wait_for(lambda: is_waiting(linked))
        linked.client.script_flush()
        linked.client.lpush("billing", b"1", b"2")
        assert bodies(reader.get(timeout=5)) == [b"1", b"2"]


def test_a_wait_takes_one_message_whatever_room_there_is(redis_url):
    """The other messages are for workers that are not stopped or blocked."""
    with linked_broker(redis_url) as linked:
        link = allow_long_waits(linked.link())
        reader = gevent.spawn(link.read, 5)
        wait_for(lambda: is_waiting(linked))
        linked.client.lpush("billing", b"1", b"2", b"3")
        assert bodies(reader.get(timeout=5)) == [b"1"]
        assert bodies(link.read(5)) == [b"2", b"3"]


def test_a_message_that_another_worker_has_is_not_forwarded(redis_url):
    with linked_broker(redis_url) as linked:
        linked.publish(outgoing())
        link = linked.link()
        delivery = read(link, 1)[0]
        linked.client.hdel("unacked", delivery.tag)
        assert isinstance(forward(link, delivery, Lane.DEAD), LeaseLost)
        assert forward(link, delivery, Lane.DEAD) is None  # It was told once.
        assert linked.depth() == 0
        assert linked.broker.dead_letters(linked.plan).count() == 0
        assert not link.closed


def test_forwarding_many_at_once_reports_on_each(redis_url):
    with linked_broker(redis_url) as linked:
        linked.fill(3)
        link = linked.link()
        found = read(link, 3)
        linked.client.hdel("unacked", found[1].tag)
        results = link.forward([Forward(each, Lane.MAIN, {}) for each in found])
        assert [type(each) for each in results] == [type(None), LeaseLost, type(None)]
        assert bodies(read(link, 2)) == [b"0", b"2"]


def test_a_delay_shorter_than_a_wait_ends_it(redis_url):
    with linked_broker(redis_url) as linked:
        link = do_not_poll_for(allow_long_waits(linked.link()))
        reader = gevent.spawn(read, link, 1)
        wait_for(lambda: is_waiting(linked))
        linked.publish(outgoing(delay=0.2))
        assert len(reader.get(timeout=20)) == 1


def test_delayed_messages_of_every_priority_go_to_their_lists(redis_url):
    with linked_broker(redis_url) as linked:
        linked.publish(
            *[outgoing(b"%d" % n, delay=0.05, priority=n) for n in range(10)]
        )
        linked.publish(outgoing(b"none", delay=0.05))
        found = bodies(read(linked.link(), 11))
        assert sorted(found) == [*(b"%d" % n for n in range(10)), b"none"]


def test_nine_is_read_first_and_no_priority_counts_as_nine(redis_url):
    with linked_broker(redis_url) as linked:
        for priority in (0, 4, None, 9):
            linked.publish(outgoing(str(priority).encode(), priority=priority))
        found = read(linked.link(), 4)
        assert bodies(found) == [b"None", b"9", b"4", b"0"]
        assert [each.message.priority for each in found] == [None, 9, 4, 0]


def test_a_message_of_a_low_priority_ends_a_wait_of_this_process(redis_url):
    with linked_broker(redis_url) as linked:
        link = do_not_poll_for(allow_long_waits(linked.link()))
        reader = gevent.spawn(read, link, 1)
        wait_for(lambda: is_waiting(linked))
        linked.publish(outgoing(priority=0))
        assert len(reader.get(timeout=20)) == 1


def test_a_message_given_back_keeps_its_priority(redis_url):
    with linked_broker(redis_url) as linked:
        linked.publish(outgoing(b"low", priority=0))
        link = linked.link()
        read(link, 1)
        link.close()
        linked.publish(outgoing(b"high", priority=9))
        assert bodies(read(linked.link(), 2)) == [b"high", b"low"]


def test_a_redis_that_cannot_wait_is_polled(own_redis):
    own_redis.command("ACL", "SETUSER", "default", "-blmove")
    with linked_broker(own_redis.url) as linked:
        link = allow_long_waits(linked.link())
        reader = gevent.spawn(read, link, 2)
        linked.publish(outgoing(b"1"))
        linked.publish(outgoing(b"2"))
        assert len(reader.get(timeout=20)) == 2
        reader = gevent.spawn(link.read, 1)
        link.close()
        assert reader.get(timeout=20) == []


def is_waiting(linked) -> bool:
    return int(linked.client.info("clients")["blocked_clients"]) > 0
