"""Dead letters: listed any number of times, replayed and purged once."""

from __future__ import annotations

import contextlib
import itertools
import typing as t

import amqp
import gevent
import pytest

from flask_qconsume.broker import headers
from flask_qconsume.broker.dead_letters import DeadLetters
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.rabbitmq import RabbitMQ
from flask_qconsume.brokers.rabbitmq.depth import count_ready
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import PublishError

from ...servers import Vhost
from ...waiting import wait_for
from .rabbit import QUEUE
from .rabbit import make_order
from .rabbit import make_plan
from .rabbit import open_broker
from .rabbit import open_link
from .rabbit import publish_orders
from .rabbit import raw_channel
from .rabbit import suspend_queue
from .rabbit import take


@pytest.fixture(params=["quorum", "classic"])
def broker(request: pytest.FixtureRequest, rabbitmq_url: str) -> t.Iterator[RabbitMQ]:
    kind = request.param
    with open_broker(rabbitmq_url, make_plan(type=kind), queue_type=kind) as made:
        yield made


def make_dead_letters(
    broker: RabbitMQ, count: int, *, expires: float | None = 600
) -> DeadLetters:
    """Publish orders and make each a dead letter."""
    publish_orders(broker, count, headers={"x-tenant": "acme"})
    with open_link(broker, prefetch=count) as link:
        forwards = [
            Forward(
                delivery,
                Lane.DEAD,
                headers.make_dead_letter_headers(
                    delivery.message, "billing", QUEUE, "bad", ValueError("no"), 1.5
                ),
                expires=expires,
            )
            for delivery in take(link, count)
        ]
        assert link.forward(forwards) == [None] * count
    return broker.dead_letters(broker.topology.queues[0])


def test_a_listing_shows_all_in_their_order_and_takes_none(broker: RabbitMQ) -> None:
    letters = make_dead_letters(broker, 250)
    first = list(letters)
    assert [letter.message.raw for letter in first] == [
        str(number).encode() for number in range(250)
    ]
    assert len({letter.ref for letter in first}) == 250
    for _ in range(3):
        assert letters.count() == 250
        assert [letter.ref for letter in letters] == [letter.ref for letter in first]


def test_a_listing_of_many_keeps_their_order(broker: RabbitMQ) -> None:
    """2,500 messages: RabbitMQ's channel requeues fewer at once to a quorum queue."""
    broker.declare()
    many = [make_order(n, f"{QUEUE}.dead", exchange="") for n in range(2_500)]
    assert broker.publish(many, 60) == [None] * len(many)
    letters = broker.dead_letters(broker.topology.queues[0])
    for _ in range(3):
        numbers = [int(letter.message.raw) for letter in letters]
        assert numbers == list(range(2_500))


def test_a_look_at_the_first_changes_nothing(broker: RabbitMQ) -> None:
    letters = make_dead_letters(broker, 150)
    for _ in range(2):
        with contextlib.closing(iter(letters)) as found:
            raws = [letter.message.raw for letter in itertools.islice(found, 3)]
        assert raws == [b"0", b"1", b"2"]
        assert letters.count() == 150
    assert len(list(letters)) == 150


def test_two_concurrent_listings_see_all(broker: RabbitMQ) -> None:
    letters = make_dead_letters(broker, 150)
    looking = iter(letters)
    next(looking)
    others = [gevent.spawn(lambda: len(list(letters))) for _ in range(2)]
    others.append(gevent.spawn(letters.count))
    gevent.joinall(others, timeout=1)
    assert not any(other.ready() for other in others)
    assert len(list(looking)) == 149
    gevent.joinall(others, timeout=30, raise_error=True)
    assert [other.value for other in others] == [150] * 3


def test_what_is_replayed_or_purged_meanwhile_is_done_once(broker: RabbitMQ) -> None:
    letters = make_dead_letters(broker, 150)
    takers = [
        gevent.spawn(letters.take, lambda letter: True, replay) for replay in (1, 1, 0)
    ]
    gevent.joinall(takers, timeout=60, raise_error=True)
    assert sorted(taker.value for taker in takers) == [0, 0, 150]


def test_a_reader_that_dies_leaves_no_lock(rabbitmq_url: str, broker: RabbitMQ) -> None:
    letters = make_dead_letters(broker, 3)
    with raw_channel(rabbitmq_url) as channel:
        channel.queue_declare(f"{QUEUE}.dead.lock", exclusive=True)
        counting = gevent.spawn(letters.count)
        counting.join(0.5)
        assert not counting.ready()
    assert counting.get(timeout=30) == 3


def test_a_listing_ends_where_letters_go_meanwhile(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    """Dead letters may expire while the listing has fetched only the first ones."""
    letters = make_dead_letters(broker, 150)
    looking = iter(letters)
    next(looking)
    with raw_channel(rabbitmq_url) as channel:
        wait_for(lambda: count_ready(channel, f"{QUEUE}.dead") == 50)
        channel.queue_purge(f"{QUEUE}.dead")
    assert len(list(looking)) == 99
    assert letters.count() == 100


def test_a_lock_that_is_not_permitted_is_done_without(
    rabbitmq_vhost: Vhost, broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    letters = make_dead_letters(broker, 3)
    rabbitmq_vhost.server.permit(rabbitmq_vhost.name, configure="^nothing$")
    assert len(list(letters)) == letters.count() == 3
    assert "without a lock" in caplog.text


def test_what_is_purged_is_gone_and_the_rest_stays(broker: RabbitMQ) -> None:
    letters = make_dead_letters(broker, 250)
    looked: list[int] = []
    taken = letters.take(
        lambda letter: int(letter.message.raw) % 2 == 0,
        replay=False,
        progress=lambda: looked.append(1),
    )
    assert (taken, len(looked)) == (125, 250)
    wait_for(lambda: letters.count() == 125)
    assert all(int(letter.message.raw) % 2 for letter in letters)
    assert broker.depth(QUEUE) == 0


def test_what_is_replayed_comes_to_its_queue_as_if_it_were_new(
    broker: RabbitMQ,
) -> None:
    letters = make_dead_letters(broker, 250)
    assert letters.take(lambda _: True, replay=True) == 250
    assert letters.count() == 0
    with open_link(broker, prefetch=300) as link:
        deliveries = take(link, 250)
        assert len(deliveries) == 250
        message = deliveries[0].message
        link.ack(deliveries)
    assert message.attempt == 1
    assert message.headers["x-tenant"] == "acme"
    assert not {headers.REASON, headers.DIED_AT} & set(message.headers)
    assert not message.redelivered


def test_what_cannot_be_replayed_stays(rabbitmq_url: str, broker: RabbitMQ) -> None:
    letters = make_dead_letters(broker, 3)
    assert letters.count() == 3
    with raw_channel(rabbitmq_url) as channel:
        channel.queue_delete(QUEUE)
    with open_broker(
        rabbitmq_url, *broker.topology.queues, declare="never"
    ) as careless:
        there = careless.dead_letters(broker.topology.queues[0])
        with pytest.raises(PublishError, match=f"'{QUEUE}'"):
            there.take(lambda _: True, replay=True)
    wait_for(lambda: letters.count() == 3)


def test_dead_letters_may_be_kept_longer_than_rabbitmq_counts(
    broker: RabbitMQ,
) -> None:
    assert make_dead_letters(broker, 1, expires=365 * 86_400).count() == 1


def test_foreign_dead_letters_are_listed(broker: RabbitMQ) -> None:
    broker.declare()
    foreign = make_order(1, f"{QUEUE}.dead", exchange="", id=None)
    assert broker.publish([foreign], 10) == [None]
    letters = broker.dead_letters(broker.topology.queues[0])
    (letter,) = letters
    assert letter.message.id is None
    assert letters.take(lambda found: found.ref == letter.ref, replay=False) == 1


def test_a_letter_whose_routing_key_is_no_utf_8_is_listed(
    rabbitmq_url: str, broker: RabbitMQ
) -> None:
    broker.declare()
    with raw_channel(rabbitmq_url) as channel:
        channel.queue_bind(f"{QUEUE}.dead", "amq.topic", "#")
        channel.basic_publish(amqp.Message(b"x"), "amq.topic", b"caf\xe9")
    (letter,) = broker.dead_letters(broker.topology.queues[0])
    assert letter.message.routing_key == "caf\\xe9"


def test_a_queue_without_a_lane_has_no_dead_letters(broker: RabbitMQ) -> None:
    letters = broker.dead_letters(make_plan("unknown"))
    assert letters.count() == 0
    assert list(letters) == []


def test_a_queue_that_answers_late_is_not_taken_for_empty(
    rabbitmq_vhost: Vhost,
) -> None:
    """RabbitMQ reports 0 if a quorum queue does not answer within 0.25 s."""
    plan = make_plan(type="quorum")
    with open_broker(rabbitmq_vhost.url, plan, queue_type="quorum") as broker:
        letters = make_dead_letters(broker, 3)
        for look in (
            letters.count,
            lambda: len(list(letters)),
            lambda: _taken(letters),
        ):
            with suspend_queue(rabbitmq_vhost, plan.dead):
                looking = gevent.spawn(look)
                looking.join(0.5)
            assert looking.get(timeout=30) == 3


def _taken(letters: DeadLetters) -> int:
    return letters.take(lambda _: True, replay=True)


def test_a_queue_that_answers_nothing_is_unknown_and_not_empty(
    rabbitmq_vhost: Vhost,
) -> None:
    plan = make_plan(type="quorum")
    with open_broker(rabbitmq_vhost.url, plan, queue_type="quorum") as broker:
        broker.declare()
        with suspend_queue(rabbitmq_vhost, plan.name):
            with pytest.raises(BrokerUnavailable, match="does not tell RabbitMQ"):
                broker.depth(plan.name)
            (status,) = broker.read_statuses([plan])
        assert (status.waiting, status.dead_letters) == (None, 0)
        with suspend_queue(rabbitmq_vhost, plan.dead):
            (status,) = broker.read_statuses([plan])
        assert (status.waiting, status.dead_letters) == (0, None)
