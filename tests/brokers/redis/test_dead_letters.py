"""Dead letters, on a real Redis."""

from __future__ import annotations

import time

import pytest

from flask_qconsume.broker import headers
from flask_qconsume.broker.link import Lane

from ...waiting import wait_for
from .tools import LinkedBroker
from .tools import bodies
from .tools import forward
from .tools import linked_broker
from .tools import outgoing
from .tools import read


@pytest.fixture(params=["redis:", "redis-streams:"])
def url(request, redis_url):
    return redis_url.replace("redis:", request.param)


def dead_key(linked: LinkedBroker) -> str:
    return "{billing}.dead" if "streams" in linked.url else "billing.dead"


def add_dead_letters(
    linked: LinkedBroker, count: int, *, expires: float | None = 60.0, **more
) -> list[bytes]:
    """Publish that many messages and let them die."""
    link = linked.link()
    linked.publish(*[outgoing(b"%d" % number, **more) for number in range(count)])
    for delivery in read(link, count):
        written = headers.make_dead_letter_headers(
            delivery.message, "bill", "billing", "told to", OSError("x"), time.time()
        )
        error = forward(link, delivery, Lane.DEAD, headers=written, expires=expires)
        assert error is None
    link.close()
    return [b"%d" % number for number in range(count)]


def test_dead_letters_are_listed_oldest_first_and_looking_changes_nothing(url):
    with linked_broker(url) as linked:
        sent = add_dead_letters(linked, 130)
        letters = linked.broker.dead_letters(linked.plan)
        for _ in range(2):
            assert [each.message.raw for each in letters] == sent
        assert letters.count() == 130
        assert linked.client.zcard(dead_key(linked)) == 130
        assert linked.depth() == 0
        first = next(iter(letters))
        assert first.queue == "billing"
        assert first.headers[headers.REASON] == "told to"
        assert first.headers[headers.ERROR] == "builtins.OSError: x"
        assert first.message.exchange == "shop"
        assert len({each.ref for each in letters}) == 130


def test_a_replay_goes_to_its_queue_as_if_it_were_new(url):
    with linked_broker(url) as linked:
        sent = add_dead_letters(
            linked, 120, headers={"x-tenant": "a"}, content_type="text/plain"
        )
        letters = linked.broker.dead_letters(linked.plan)
        looked_at = []
        taken = letters.take(
            lambda letter: letter.message.raw in sent[10:20],
            replay=True,
            progress=lambda: looked_at.append(1),
        )
        assert (taken, len(looked_at), letters.count()) == (10, 120, 110)
        found = read(linked.link(), 10)
        assert bodies(found) == sent[10:20]
        message = found[0].message
        assert (message.attempt, message.deaths, message.redelivered) == (1, 0, False)
        assert message.headers["x-tenant"] == "a"
        assert headers.REASON not in message.headers
        assert (message.exchange, message.routing_key) == ("shop", "billing")
        assert message.content_type == "text/plain"


def test_a_purge_removes_and_sends_nothing(url):
    with linked_broker(url) as linked:
        add_dead_letters(linked, 130)
        letters = linked.broker.dead_letters(linked.plan)
        assert letters.take(lambda letter: True, replay=False) == 130
        assert letters.count() == 0
        assert linked.depth() == 0


def test_two_replays_at_once_send_each_one_once(url):
    with linked_broker(url) as linked:
        add_dead_letters(linked, 20)
        letters = linked.broker.dead_letters(linked.plan)

        def wanted(letter) -> bool:
            # Somebody else is quicker, every time.
            letters.take(lambda other: other.ref == letter.ref, replay=True)
            return True

        assert letters.take(wanted, replay=True) == 0
        assert linked.depth() == 20


def test_dead_letters_expire(url):
    with linked_broker(url) as linked:
        add_dead_letters(linked, 3, expires=0.2)
        letters = linked.broker.dead_letters(linked.plan)
        wait_for(lambda: letters.count() == 0, timeout=5)
        assert list(letters) == []
        assert letters.take(lambda letter: True, replay=True) == 0
        add_dead_letters(linked, 1)
        assert linked.client.zcard(dead_key(linked)) == 1


def test_dead_letters_without_an_end_are_kept(url):
    with linked_broker(url) as linked:
        sent = add_dead_letters(linked, 120, expires=None)
        letters = linked.broker.dead_letters(linked.plan)
        assert [each.message.raw for each in letters] == sent


def test_a_foreign_message_is_replayed_as_it_was(redis_url):
    with linked_broker(redis_url) as linked:
        linked.client.lpush("billing", b"\xff\xfe{")
        link = linked.link()
        delivery = read(link, 1)[0]
        written = headers.make_dead_letter_headers(
            delivery.message, "b", "billing", "no", None, 1.0
        )
        forward(link, delivery, Lane.DEAD, headers=written, expires=60.0)
        linked.broker.dead_letters(linked.plan).take(lambda letter: True, replay=True)
        again = read(link, 1)[0].message
        assert (again.raw, again.id, again.content_type) == (b"\xff\xfe{", None, None)


def test_dead_letters_of_another_program_are_listed_too(url):
    with linked_broker(url) as linked:
        linked.client.zadd(dead_key(linked), {b"garbage\xff": time.time() + 60})
        letters = linked.broker.dead_letters(linked.plan)
        assert [each.message.raw for each in letters] == [b"garbage\xff"]
        assert letters.take(lambda letter: True, replay=True) == 1
        assert bodies(read(linked.link(), 1)) == [b"garbage\xff"]
