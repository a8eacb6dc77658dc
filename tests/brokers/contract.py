"""The contract: cases that every broker must pass, unless it lacks a capability.

A case names the capabilities that it needs. On a broker without one of them the case is
*excluded*: its ``otherwise`` function proves that the broker behaves as declared, and
the run reports the case as excluded, with the missing capability.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gzip
import json
import math
import time
import typing as t
import zlib

import gevent
import pytest
from gevent.event import Event
from kombu import Exchange
from kombu import Queue

from flask_qconsume import TOMBSTONE
from flask_qconsume import Ack
from flask_qconsume import Drop
from flask_qconsume import Message
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import RetryPolicy
from flask_qconsume import current_message
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.base import QueueStatus
from flask_qconsume.broker.base import SuspectsStatus
from flask_qconsume.broker.compose import compose
from flask_qconsume.broker.given_queues import find_unsupported_traits
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import Binding
from flask_qconsume.cli.dead_letter_text import format_json
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import PublishTimeout
from flask_qconsume.errors import TopologyMismatch
from flask_qconsume.errors import Unroutable
from flask_qconsume.errors import UnsupportedByBroker
from flask_qconsume.extension import get_app_consumers
from flask_qconsume.formats.table import BUILT_IN
from flask_qconsume.handling.payload import decode
from flask_qconsume.running.worker import Worker

from ..formats.flooding import find_colliding
from ..formats.flooding import packed
from ..listeners import Recorder
from ..listeners import make_raisers
from ..waiting import hang
from ..waiting import spend
from ..waiting import wait_for
from .context import EXCHANGE
from .context import SOON
from .context import CaseContext
from .context import bodies

Check = t.Callable[[CaseContext], None]


class Excluded(Exception):
    """The broker lacks a capability that the case needs."""


class Case:
    """One thing that a broker must do, checked by a function.

    :param needs: Names of the capabilities that the broker must have.
    :param breaks: Whether the check freezes or stops the server.
    """

    def __init__(self, check: Check, needs: tuple[str, ...], breaks: bool) -> None:
        self.check = check
        self.name = check.__name__
        self.needs = needs
        self.breaks = breaks
        self._instead: dict[str, Check] = {}

    def otherwise(self, capability: str) -> t.Callable[[Check], Check]:
        """Register the check for brokers without this capability."""
        assert capability in self.needs

        def decorate(check: Check) -> Check:
            self._instead[capability] = check
            return check

        return decorate

    def run(self, context: CaseContext) -> None:
        """Run the check, or the one for brokers without the capability.

        :raises Excluded: if the broker lacks a capability, and that check passed.
        """
        for capability in self.needs:
            if not getattr(context.capabilities, capability):
                if capability in self._instead:
                    self._instead[capability](context)
                label = {fact.name: fact.short for fact in context.capabilities.facts}
                raise Excluded(
                    f"{context.capabilities.title} has no {label[capability]}"
                )
        self.check(context)


#: All cases by name, in the order of the table.
CASES: dict[str, Case] = {}


def case(*needs: str, breaks: bool = False) -> t.Callable[[Check], Case]:
    """Return a decorator that registers a function as a case."""

    def decorate(check: Check) -> Case:
        new = Case(check, needs, breaks)
        assert new.name not in CASES
        CASES[new.name] = new
        return new

    return decorate


# -- content of messages ---------------------------------------------------------------


@case()
def a_message_arrives_as_it_was_sent(context: CaseContext) -> None:
    sent = context.message(
        b'{"n": 1}',
        headers={"x-tenant": "acme", "n": 7},
        content_type="application/json",
        key="customer-1",
        expires=60,
        id="order-1",
    )
    sent = dataclasses.replace(
        sent,
        content_encoding="utf-8",
        properties={"correlation_id": "c", "reply_to": "answers", "type": "t"},
    )
    context.publish(sent)
    message = context.open_reader().take_one().message
    assert message.raw == b'{"n": 1}'
    assert (message.id, message.key) == ("order-1", "customer-1")
    assert (message.headers["x-tenant"], message.headers["n"]) == ("acme", 7)
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.timestamp == pytest.approx(time.time(), abs=10)
    assert message.expires_at == pytest.approx(time.time() + 60, abs=10)
    assert {**message.properties, **sent.properties} == message.properties
    assert (message.exchange, message.routing_key) == (EXCHANGE, context.key("order"))
    assert message.queue == context.plan.name
    assert (message.attempt, message.deaths, message.redelivered) == (1, 0, False)


@case()
def bodies_of_any_bytes_arrive(context: CaseContext) -> None:
    sent = [b"", b"\x00", b"\xff\xfe", bytes(range(256)) * 4, b"1" * 1_000_000]
    context.publish(*(context.message(body) for body in sent))
    reader = context.open_reader()
    deliveries = reader.take(len(sent))
    assert sorted(bodies(deliveries)) == sorted(sent)
    # A dead letter is larger than its message, and must not be lost because of that.
    reader.dead_letter(*deliveries)
    letters = context.list_dead_letters()
    assert sorted(letter.message.raw for letter in letters) == sorted(sent)


@case()
def headers_of_any_plain_values_arrive(context: CaseContext) -> None:
    sent = {
        "text": "grüße 🎉 \x00",
        "empty": "",
        "yes": True,
        "no": False,
        "none": None,
        "whole": -(2**40),
        "float": 0.5,
        "list": [1, "two", [3]],
        "table": {"in": {"deep": [None, True]}},
        "bytes": b"\xff\x00",
    }
    context.publish(context.message(b"1", headers=sent, key="schlüssel", id="nº 1"))
    message = context.open_reader().get()
    assert {**message.headers, **sent} == message.headers
    assert [type(message.headers[name]) for name in sent] == list(
        map(type, sent.values())
    )
    assert (message.key, message.id) == ("schlüssel", "nº 1")


@case("foreign")
def a_message_of_a_foreign_program_arrives(context: CaseContext) -> None:
    """A message without an id, a type or our headers is handled like any other."""
    context.app.declare()
    context.broker.send_foreign(context.plan, b'{"n": 1}')
    reader = context.open_reader()
    delivery = reader.take_one()
    message = delivery.message
    assert (message.raw, message.id, message.content_type) == (b'{"n": 1}', None, None)
    assert (message.attempt, message.redelivered) == (1, False)
    assert message.queue == context.plan.name
    reader.retry(delivery)
    again = reader.take_one()
    assert (again.message.raw, again.message.id) == (b'{"n": 1}', None)
    assert again.message.attempt == 2
    reader.dead_letter(again)
    (letter,) = context.list_dead_letters()
    assert (letter.message.raw, letter.message.id) == (b'{"n": 1}', None)
    assert letter.ref


@case()
def a_compressed_body_is_read_and_replayed_as_it_came(context: CaseContext) -> None:
    raw = zlib.compress(gzip.compress(b'{"n": 1}'))
    sent = context.message(
        raw,
        content_type="application/json",
        headers={"compression": "application/x-gzip"},
    )
    context.publish(dataclasses.replace(sent, content_encoding="gzip"))
    reader = context.open_reader()
    delivery = reader.take_one()
    assert decode_body(delivery.message) == {"n": 1}
    reader.retry(delivery)
    reader.dead_letter(reader.take_one())
    (letter,) = context.list_dead_letters()
    decoders = BUILT_IN.decoders()
    assert json.loads(format_json(letter, decoders, whole=True))["body"] == {"n": 1}
    context.app.dead_letters(context.plan).take(lambda letter: True, replay=True)
    message = reader.get()
    assert (message.raw, message.content_encoding) == (raw, "gzip")
    assert decode_body(message) == {"n": 1}


def decode_body(message: Message) -> t.Any:
    return decode(message, BUILT_IN.decoders(), 1_000)


@case("tombstones")
def a_tombstone_arrives(context: CaseContext) -> None:
    context.publish(context.message(TOMBSTONE, key="customer-1"))
    message = context.open_reader().get()
    assert message.tombstone
    assert message.key == "customer-1"


@a_tombstone_arrives.otherwise("tombstones")
def a_tombstone_is_refused(context: CaseContext) -> None:
    with pytest.raises(UnsupportedByBroker):
        context.app.publish([context.message(TOMBSTONE, key="customer-1")], SOON)


# -- publishing ------------------------------------------------------------------------


@case()
def a_confirmed_message_is_in_its_queue(context: CaseContext) -> None:
    context.fill(7)
    assert context.depth() == 7


@case()
def publishing_declares_what_it_needs(context: CaseContext) -> None:
    """The first publish declares the queues, so that no event is lost."""
    context.publish(context.message(b"first"))
    assert context.open_reader().get().raw == b"first"


@case()
def an_unroutable_message_is_an_error_of_its_own(context: CaseContext) -> None:
    sent = [
        context.message(b"1"),
        context.message(b"2", "missing"),
        context.message(b"3", "missing", mandatory=False),
        context.message(b"4"),
    ]
    errors = context.app.publish(sent, SOON)
    assert [type(each) for each in errors] == [
        type(None),
        Unroutable,
        type(None),
        type(None),
    ]
    assert context.key("missing") in str(errors[1])
    assert "mandatory=False" in str(errors[1])
    reader = context.open_reader()
    assert sorted(bodies(reader.take(2))) == [b"1", b"4"]
    reader.expect_nothing()


@case()
def each_queue_that_is_bound_gets_one_copy(context: CaseContext) -> None:
    twice = context.plan_queue("twice", "event", "#.event", "#")
    once = context.plan_queue("once", "event")
    other = context.plan_queue("other", "something.else")
    app = context.open_app(twice, once, other)
    app.declare()
    context.publish(context.message(b"1", "event"), by=app)
    readers = [context.open_reader(plan) for plan in (twice, once, other)]
    assert [reader.get().raw for reader in readers[:2]] == [b"1", b"1"]
    for reader in readers:
        reader.expect_nothing(0.1)


@case()
def a_queue_gets_a_copy_of_its_own_to_settle(context: CaseContext) -> None:
    """Settling a copy in one queue does not change the copy in another queue."""
    audit = context.plan_queue("audit", "order")
    app = context.open_app(audit)
    app.declare()
    context.publish(context.message(b"1"))
    first, second = context.open_reader(), context.open_reader(audit)
    first.dead_letter(first.take_one())
    second.retry(second.take_one())
    assert second.get().attempt == 2
    context.await_depth(0)
    first.expect_nothing(0.1)


PATTERNS = {
    "order.#": {"order", "order.new", "order.new.eu"},
    "order.*": {"order.new"},
    "*.new": {"order.new"},
    "#.new": {"order.new", "new"},
    "order.#.eu": {"order.new.eu"},
    "#": {"order", "order.new", "order.new.eu", "new", "orders"},
}


@case()
def patterns_mean_what_amqp_says(context: CaseContext) -> None:
    """``order.#`` also matches ``order``, unlike in kombu's own matcher."""
    keys = sorted(PATTERNS["#"])
    literal = context.plan_queue("literal", *keys)
    plans = {
        pattern: context.plan_queue(f"q{number}", pattern)
        for number, pattern in enumerate(PATTERNS)
    }
    app = context.open_app(literal, *plans.values())
    app.declare()
    context.publish(*(context.message(key.encode(), key) for key in keys), by=app)
    for pattern, plan in plans.items():
        reader = context.open_reader(plan)
        expected = PATTERNS[pattern]
        came = {raw.decode() for raw in bodies(reader.take(len(expected)))}
        assert came == expected, pattern
        reader.expect_nothing(0.05)
        reader.close()


@case()
def a_queue_is_reached_by_its_name(context: CaseContext) -> None:
    """A message to the default exchange reaches the named queue and no other queue."""
    audit = context.plan_queue("audit", "#")
    app = context.open_app(audit)
    app.declare()
    context.app.declare()
    context.publish(context.message(b"1", context.plan.name, exchange=""))
    message = context.open_reader().get()
    assert (message.raw, message.queue) == (b"1", context.plan.name)
    assert app.depth(audit.name) == 0


@case("knows_missing_queues")
def a_queue_that_is_not_there_is_an_error(context: CaseContext) -> None:
    message = context.message(b"1", context.key("missing"), exchange="")
    assert isinstance(context.publish_refused(message), Unroutable)
    assert context.depth(context.key("missing")) == 0


@a_queue_that_is_not_there_is_an_error.otherwise("knows_missing_queues")
def a_queue_is_there_once_it_is_published_to(context: CaseContext) -> None:
    name = context.key("missing")
    context.publish(context.message(b"1", name, exchange=""))
    assert context.depth(name) == 1


@case("exchanges")
def another_exchange_can_be_published_to(context: CaseContext) -> None:
    theirs = Exchange(context.key("theirs"), "direct")
    given = Queue(context.key("inbox"), theirs, routing_key=context.key("mail"))
    plan = context.plan_queue("inbox", given=given)
    app = context.open_app(plan)
    app.declare()
    context.publish(context.message(b"1", "mail", exchange=theirs), by=app)
    message = context.open_reader(plan).get()
    assert (message.exchange, message.routing_key) == (theirs.name, context.key("mail"))
    assert isinstance(
        context.publish_refused(
            context.message(b"1", "mail", exchange=context.key("no"))
        ),
        Unroutable,
    )


@another_exchange_can_be_published_to.otherwise("exchanges")
def another_exchange_is_refused(context: CaseContext) -> None:
    assert_refused_before_sending(context, exchange="another")


def assert_refused_before_sending(context: CaseContext, **options: t.Any) -> None:
    with pytest.raises(UnsupportedByBroker, match="Leave"):
        context.app.publish(
            [context.message(b"1"), context.message(b"2", **options)], SOON
        )
    context.app.declare()
    assert context.depth() == 0


@case()
def many_messages_of_one_call_all_arrive(context: CaseContext) -> None:
    sent = context.fill(1_000)
    reader = context.open_reader(prefetch=1_000)
    deliveries = reader.take(1_000)
    assert sorted(bodies(deliveries)) == sorted(sent)
    reader.ack(deliveries)


@case()
def many_greenlets_publish_at_once(context: CaseContext) -> None:
    def some(start: int) -> None:
        for number in range(start, start + 5):
            context.publish(context.message(b"%d" % number))

    greenlets = [gevent.spawn(some, number * 5) for number in range(20)]
    gevent.joinall(greenlets, timeout=SOON, raise_error=True)
    came = bodies(context.open_reader().take(100))
    assert sorted(came, key=int) == [b"%d" % n for n in range(100)]


@case()
def publishing_after_a_close_connects_again(context: CaseContext) -> None:
    context.fill(1)
    context.app.close()
    context.app.close()
    context.fill(1)
    context.await_depth(2)


@case("expires_unread")
def an_unread_message_expires(context: CaseContext) -> None:
    context.publish(context.message(b"1", expires=0.2))
    context.await_depth(0)


@an_unread_message_expires.otherwise("expires_unread")
def an_expired_message_arrives_with_its_expiry(context: CaseContext) -> None:
    """The worker drops the message, since the broker does not."""
    context.publish(context.message(b"1", expires=0.05))
    expired = time.time() + 0.05
    wait_for(lambda: time.time() > expired)
    message = context.open_reader().get()
    assert message.expires_at is not None
    assert message.expires_at < time.time()


@case("priorities")
def the_highest_priority_comes_first(context: CaseContext) -> None:
    """Equal priorities keep their order. RabbitMQ needs a queue with priorities."""
    theirs = Exchange(context.key("theirs"), "direct")
    key = context.key("mail")
    given = Queue(context.key("inbox"), theirs, routing_key=key, max_priority=9)
    plan = context.plan_queue("inbox", given=given)
    app = context.open_app(plan)
    app.declare()
    for body, priority in [(b"1", 0), (b"2", 9), (b"3", 4), (b"4", 9), (b"5", 0)]:
        context.publish(
            context.message(body, "mail", exchange=theirs, priority=priority), by=app
        )
    reader = context.open_reader(plan)
    deliveries = reader.take(5)
    assert bodies(deliveries) == [b"2", b"4", b"3", b"1", b"5"]
    assert [d.message.priority for d in deliveries] == [9, 9, 4, 0, 0]
    reader.ack(deliveries[1:])
    # A retry keeps the priority.
    reader.retry(deliveries[0])
    assert reader.get().priority == 9


@the_highest_priority_comes_first.otherwise("priorities")
def a_priority_is_refused(context: CaseContext) -> None:
    assert_refused_before_sending(context, priority=5)


@case()
def a_delay_beyond_the_longest_is_refused(context: CaseContext) -> None:
    longest = context.capabilities.max_delay
    if math.isinf(longest):
        raise Excluded(f"{context.capabilities.title} holds back for any time")
    assert_refused_before_sending(context, delay=longest + 1)


@case("delayed_publish")
def a_delayed_message_comes_when_it_is_due(context: CaseContext) -> None:
    reader = context.open_reader()
    began = time.monotonic()
    context.publish(context.message(b"late", delay=0.7), context.message(b"now"))
    assert reader.get().raw == b"now"
    late = reader.get()
    assert late.raw == b"late"
    assert 0.65 < time.monotonic() - began < 0.7 + allow_lateness(context, 0.7)
    assert (late.exchange, late.routing_key) == (EXCHANGE, context.key("order"))
    assert (late.attempt, late.redelivered) == (1, False)


@a_delayed_message_comes_when_it_is_due.otherwise("delayed_publish")
def a_delayed_message_is_refused(context: CaseContext) -> None:
    assert_refused_before_sending(context, delay=1)


def allow_lateness(context: CaseContext, delay: float) -> float:
    """Return the seconds by which a delay may be late, on a busy machine too."""
    return (1.0 if context.capabilities.exact_delays else max(delay, 1.0)) + 1.0


@case("unattended_delays")
def a_due_message_reaches_its_queue_without_a_consumer(context: CaseContext) -> None:
    """The broker moves a due message into its queue while no worker runs."""
    context.app.declare()
    context.publish(context.message(b"1", context.plan.name, exchange="", delay=2))
    assert context.depth() == 0
    context.await_depth(1)


@a_due_message_reaches_its_queue_without_a_consumer.otherwise("unattended_delays")
def a_due_message_comes_once_a_consumer_reads(context: CaseContext) -> None:
    context.app.declare()
    context.publish(context.message(b"1", context.plan.name, exchange="", delay=0.3))
    due = time.time() + 0.3
    wait_for(lambda: time.time() > due)
    assert context.open_reader().get().raw == b"1"


# -- reading and settling --------------------------------------------------------------


@case("in_order")
def messages_come_in_the_order_of_their_publishing(context: CaseContext) -> None:
    sent = context.fill(300)
    assert bodies(context.open_reader(prefetch=300).take(300)) == sent


@messages_come_in_the_order_of_their_publishing.otherwise("in_order")
def messages_of_one_key_come_in_order(context: CaseContext) -> None:
    sent = context.fill(300, key="one")
    assert bodies(context.open_reader(prefetch=300).take(300)) == sent


@case()
def an_acknowledged_message_is_gone(context: CaseContext) -> None:
    context.fill(20)
    reader = context.open_reader()
    reader.ack(reader.take(20))
    reader.close()
    context.await_depth(0)
    context.open_reader().expect_nothing()


@case()
def acknowledgements_in_any_order_leave_what_is_open(context: CaseContext) -> None:
    context.fill(100)
    reader = context.open_reader()
    deliveries = reader.take(100)
    kept = deliveries.pop(42)
    reader.ack(deliveries[90:])
    for delivery in reversed(deliveries[80:90]):
        reader.ack([delivery])
    reader.ack(list(reversed(deliveries[:80])))
    reader.close()
    again = context.open_reader()
    assert again.take_one().message.raw == kept.message.raw
    again.expect_nothing(0.1)


@case()
def acknowledgements_of_the_last_moment_count(context: CaseContext) -> None:
    context.fill(200)
    reader = context.open_reader(prefetch=200)
    for delivery in reader.take(200)[1:]:
        reader.ack([delivery])
    reader.close()
    again = context.open_reader(prefetch=200)
    assert len(again.take(1)) == 1
    again.expect_nothing(0.1)


@case()
def settling_twice_does_no_harm(context: CaseContext) -> None:
    context.fill(3)
    reader = context.open_reader()
    first, second, third = reader.take(3)
    reader.ack([second, second])
    reader.ack([second])
    reader.ack([third])
    context.publish(context.message(b"after"))
    assert reader.get().raw == b"after"
    reader.close()
    assert context.open_reader().take_one().message.raw == first.message.raw


@case()
def a_settlement_of_a_closed_link_does_nothing(context: CaseContext) -> None:
    """The delivery tag may belong to another message by then."""
    context.fill(1)
    link = context.open_link()
    (delivery,) = read_one(link)
    link.close()
    assert delivery.stale
    reader = context.open_reader()
    (same,) = reader.take(1)
    assert not same.stale
    try:
        link.ack([delivery])
    except BrokerError as error:
        assert "closed" in str(error)
    reader.close()
    again = context.open_reader().take_one()
    assert again.message.raw == delivery.message.raw


def read_one(link: t.Any) -> t.Any:
    with gevent.Timeout(SOON, AssertionError("no message came")):
        while not (found := link.read(1)):
            pass
    return found


@case()
def no_more_is_fetched_than_the_prefetch_allows(context: CaseContext) -> None:
    """A consumer does not hold messages that another consumer could handle."""
    context.fill(20)
    reader = context.open_reader(prefetch=3)
    held = reader.take(3)
    reader.expect_nothing()
    reader.ack(held[:2])
    assert len(reader.take(2)) == 2
    reader.expect_nothing(0.1)


@case()
def two_links_share_a_queue_without_doubles(context: CaseContext) -> None:
    readers = [context.open_reader(prefetch=5) for _ in range(2)]
    sent = context.fill(60)
    came: list[bytes] = []

    def all_came() -> bool:
        for reader in readers:
            new = reader.take(len(reader.waiting()))
            came.extend(bodies(new))
            reader.ack(new)
        return len(came) >= len(sent)

    wait_for(all_came, SOON, message=lambda: f"{len(came)} came")
    assert sorted(came, key=int) == sent
    for reader in readers:
        reader.expect_nothing(0.1)


@case()
def closing_wakes_a_blocked_reader(context: CaseContext) -> None:
    context.fill(1)
    link = context.open_link()
    came: list[Delivery] = []

    def read() -> None:
        try:
            while not link.closed:
                came.extend(link.read(1))
        except BrokerUnavailable:
            return

    reader = gevent.spawn(read)
    wait_for(lambda: came)  # From now on it waits for a second message.
    began = time.monotonic()
    link.close()
    link.close()
    reader.get(timeout=5)
    assert time.monotonic() - began < 3


@case()
def a_paused_link_fetches_no_more_and_settles_what_it_has(context: CaseContext) -> None:
    context.fill(1)
    reader = context.open_reader()
    held = reader.take(1)
    reader.link.pause()
    context.publish(context.message(b"later"))
    reader.expect_nothing()
    reader.ack(held)
    reader.close()
    assert context.open_reader().get().raw == b"later"


@case("hands_over")
def a_released_message_reaches_another_consumer_at_once(context: CaseContext) -> None:
    sent = context.fill(10)
    reader = context.open_reader()
    held = reader.take(10)
    reader.release(held[4:])
    other = context.open_reader()
    assert sorted(bodies(other.take(6))) == sorted(bodies(held[4:]))
    reader.ack(held[:4])
    reader.close()
    other.expect_nothing(0.1)
    assert len(sent) == 10


@a_released_message_reaches_another_consumer_at_once.otherwise("hands_over")
def a_released_message_reaches_another_consumer_after_the_close(
    context: CaseContext,
) -> None:
    context.fill(10)
    reader = context.open_reader()
    held = reader.take(10)
    reader.release(held[4:])
    reader.ack(held[:4])
    reader.close()
    other = context.open_reader()
    assert sorted(bodies(other.take(6))) == sorted(bodies(held[4:]))
    other.expect_nothing(0.1)


@case("keeps_place")
def a_returned_message_keeps_its_place(context: CaseContext) -> None:
    context.fill(20, key="one")
    reader = context.open_reader(prefetch=10)
    held = reader.take(10)
    reader.ack(held[3:5])
    reader.close()
    expected = [b"%d" % n for n in (0, 1, 2, *range(5, 20))]
    came = bodies(context.open_reader().take(18))
    assert came == expected, came


@a_returned_message_keeps_its_place.otherwise("keeps_place")
def a_returned_message_comes_again(context: CaseContext) -> None:
    context.fill(20, key="one")
    reader = context.open_reader(prefetch=10)
    held = reader.take(10)
    reader.ack(held[3:5])
    reader.close()
    gone = bodies(held[3:5])
    came = bodies(context.open_reader().take(18))
    assert sorted([*came, *gone], key=int) == [b"%d" % n for n in range(20)]


@case("keeps_place")
def the_order_holds_over_a_stop_with_prefetch_one(context: CaseContext) -> None:
    sent = context.fill(6, key="one")
    came = []
    for _ in range(3):
        reader = context.open_reader(prefetch=1)
        came.append(reader.get().raw)
        came.append(reader.get().raw)
        reader.take(1) if len(came) < 6 else None
        reader.close()
    assert came == sent


@case("unmarked_stops")
def a_message_returned_by_a_stop_is_not_marked(context: CaseContext) -> None:
    assert not any(find_marks_after_a_stop(context))


@a_message_returned_by_a_stop_is_not_marked.otherwise("unmarked_stops")
def a_message_returned_by_a_stop_is_marked(context: CaseContext) -> None:
    assert all(find_marks_after_a_stop(context))


def find_marks_after_a_stop(context: CaseContext) -> list[bool]:
    context.fill(3)
    reader = context.open_reader()
    reader.take(3)
    reader.close()
    return [d.message.redelivered for d in context.open_reader().take(3)]


@case("counts_deliveries")
def the_count_of_deliveries_is_among_the_headers(context: CaseContext) -> None:
    find_marks_after_a_stop(context)
    context._readers[-1].close()
    assert context.open_reader().take_one().message.headers["x-delivery-count"] == 2


@the_count_of_deliveries_is_among_the_headers.otherwise("counts_deliveries")
def no_count_of_deliveries_is_among_the_headers(context: CaseContext) -> None:
    find_marks_after_a_stop(context)
    context._readers[-1].close()
    assert "x-delivery-count" not in context.open_reader().take_one().message.headers


# -- retries ---------------------------------------------------------------------------


@case()
def a_retry_keeps_all_but_its_attempt(context: CaseContext) -> None:
    sent = context.message(
        b"1", headers={"x-tenant": "acme"}, key="k", expires=60, id="order-1"
    )
    hour_ago = time.time() - 3_600
    context.publish(
        dataclasses.replace(
            sent, properties={"correlation_id": "c"}, timestamp=hour_ago
        )
    )
    reader = context.open_reader()
    delivery = reader.take_one()
    assert delivery.message.timestamp == pytest.approx(hour_ago, abs=1)
    reader.retry(delivery)
    old, new = delivery.message, reader.get()
    assert new.attempt == 2
    for name in ("id", "raw", "key", "exchange", "routing_key", "queue"):
        assert getattr(new, name) == getattr(old, name), name
    assert new.content_type == old.content_type
    assert new.properties["correlation_id"] == "c"
    assert new.headers["x-tenant"] == "acme"
    assert new.timestamp == pytest.approx(old.timestamp, abs=1)
    assert new.expires_at == pytest.approx(old.expires_at, abs=1)
    assert not new.redelivered
    reader.expect_nothing(0.1)


@case()
def a_header_that_no_copy_can_carry_stays_behind_and_nothing_is_lost(
    context: CaseContext,
) -> None:
    """A hook may set a header that is no plain value; the copy names such headers.

    Brokers leave the header out or store its text; the memory broker keeps the object.
    """
    context.fill(1)
    reader = context.open_reader()
    delivery = reader.take_one()
    headers = {"x-object": object(), "x-tenant": "acme"}
    reader.forward(Forward(delivery, Lane.MAIN, headers))
    copy = reader.get()
    if copy.headers.get("x-object") is not headers["x-object"]:
        assert copy.headers[own_headers.CHANGED] == "x-object"
    assert copy.headers["x-tenant"] == "acme"
    assert copy.raw == b"0"


@case()
def a_delayed_retry_comes_when_it_is_due(context: CaseContext) -> None:
    context.fill(1)
    reader = context.open_reader()
    delivery = reader.take_one()
    began = time.monotonic()
    reader.retry(delivery, delay=1.2)
    again = reader.get()
    took = time.monotonic() - began
    assert 1.15 < took < 1.2 + allow_lateness(context, 1.2)
    assert (again.raw, again.attempt, again.redelivered) == (b"0", 2, False)
    assert (again.exchange, again.routing_key) == (EXCHANGE, context.key("order"))


@case("exact_delays")
def a_delay_is_exact_behind_a_longer_one(context: CaseContext) -> None:
    assert time_delay_behind_a_longer_one(context) < 1.1 + 1.0


@a_delay_is_exact_behind_a_longer_one.otherwise("exact_delays")
def a_delay_is_late_by_its_own_length_at_most(context: CaseContext) -> None:
    assert time_delay_behind_a_longer_one(context) < 1.1 * 2 + 1.0


def time_delay_behind_a_longer_one(context: CaseContext) -> float:
    """Return the seconds that a delay of 1.1 s takes behind one of 1.9 s."""
    context.fill(2)
    reader = context.open_reader()
    first, second = reader.take(2)
    began = time.monotonic()
    reader.retry(first, delay=1.9)
    reader.retry(second, delay=1.1)
    came = {}
    for _ in range(2):
        raw = reader.get().raw
        came[raw] = time.monotonic() - began
    assert came[first.message.raw] > 1.85
    assert came[second.message.raw] > 1.05
    return came[second.message.raw]


@case()
def a_short_retry_is_not_behind_a_long_one(context: CaseContext) -> None:
    context.fill(2)
    reader = context.open_reader(prefetch=1)
    reader.retry(reader.take_one(), delay=30)
    second = reader.take_one()
    reader.retry(second, delay=0.3)
    context.publish(context.message(b"new"))
    came = {reader.get(5).raw, reader.get(5).raw}
    assert came == {second.message.raw, b"new"}


@case()
def a_retry_goes_to_the_queue_that_failed_only(context: CaseContext) -> None:
    audit = context.plan_queue("audit", "#")
    context.open_app(audit).declare()
    context.publish(context.message(b"1"))
    reader = context.open_reader()
    reader.retry(reader.take_one())
    assert reader.get().attempt == 2
    other = context.open_reader(audit)
    assert other.get().attempt == 1
    other.expect_nothing(0.1)


@case()
def attempts_are_counted_over_many_retries(context: CaseContext) -> None:
    """No retry is dropped by a broker that takes it for a routing loop."""
    context.fill(1)
    reader = context.open_reader()
    for attempt in range(1, 7):
        delivery = reader.take_one()
        assert delivery.message.attempt == attempt
        reader.retry(delivery, delay=0.05 * (attempt % 2))
    assert reader.get().attempt == 7


@case()
def a_retry_outlives_a_stop(context: CaseContext) -> None:
    """The broker holds a retry, so it survives the end of the worker."""
    context.fill(1)
    reader = context.open_reader()
    reader.retry(reader.take_one(), delay=0.5)
    reader.close()
    assert context.open_reader().get().attempt == 2


# -- counts ----------------------------------------------------------------------------


def read_all_statuses(context: CaseContext) -> list[QueueStatus]:
    """Read the status of the queue in both ways: exactly, and cheaply."""
    plans = [context.plan]
    return context.app.read_statuses(plans) + context.app.read_backlog(plans, SOON)


def await_statuses(context: CaseContext, **expected: t.Any) -> None:
    """Wait until both statuses have these values; RabbitMQ's come with a delay."""

    def find() -> list[dict[str, t.Any]]:
        found = map(dataclasses.asdict, read_all_statuses(context))
        return [{name: each[name] for name in expected} for each in found]

    wait_for(lambda: find() == [expected] * 2, SOON, message=lambda: f"{find()}")


@case()
def messages_that_wait_are_counted(context: CaseContext) -> None:
    """A suspect and a dead letter do not wait in the queue any more."""
    context.app.declare()
    await_statuses(context, waiting=0, suspects={"waiting": 0, "since": None})
    context.fill(3)
    await_statuses(context, waiting=3)
    reader = context.open_reader()
    first, second, third = reader.take(3)
    reader.suspect(first, now=1000.0)
    reader.dead_letter(second)
    reader.ack([third])
    reader.close()
    await_statuses(context, waiting=0)
    for status in read_all_statuses(context):
        assert status.suspects is not None and status.suspects.waiting == 1
        since = 1000.0 if context.capabilities.dates_suspects else None
        assert status.suspects.since == since
    assert context.app.read_statuses([context.plan])[0].dead_letters == 1


@case()
def several_queues_are_counted_together(context: CaseContext) -> None:
    audit = context.plan_queue("audit", "order", "audit")
    app = context.open_app(context.plan, audit)
    app.declare()
    context.publish(context.message(b"1"), context.message(b"2", "audit"), by=app)
    for read in (app.read_statuses, lambda plans: app.read_backlog(plans, SOON)):
        wait_for(
            lambda read=read: (
                [each.waiting for each in read([context.plan, audit])] == [1, 2]
            ),
            SOON,
        )


@case("counts_delayed")
def delayed_messages_are_counted(context: CaseContext) -> None:
    retry_one(context, delay=30.0)
    await_statuses(context, waiting=0, delayed=1)


@delayed_messages_are_counted.otherwise("counts_delayed")
def the_number_of_delayed_messages_is_unknown(context: CaseContext) -> None:
    retry_one(context, delay=30.0)
    await_statuses(context, waiting=0, delayed=None)


def retry_one(context: CaseContext, delay: float) -> None:
    """Publish a message, and let a worker retry it after a delay, and stop."""
    context.fill(1)
    reader = context.open_reader()
    reader.retry(reader.take_one(), delay)
    reader.close()


@case("counts_in_hand")
def messages_in_hand_are_counted(context: CaseContext) -> None:
    context.fill(3)
    reader = context.open_reader()
    first, *_ = reader.take(3)
    await_statuses(context, waiting=0, in_hand=3)
    reader.ack([first])
    await_statuses(context, waiting=0, in_hand=2)


@messages_in_hand_are_counted.otherwise("counts_in_hand")
def the_number_of_messages_in_hand_is_unknown(context: CaseContext) -> None:
    context.fill(1)
    context.open_reader().take_one()
    assert {status.in_hand for status in read_all_statuses(context)} == {None}


@case("counts_dead_letters")
def dead_letters_are_counted_cheaply(context: CaseContext) -> None:
    bury_one(context)
    await_statuses(context, dead_letters=1)


@dead_letters_are_counted_cheaply.otherwise("counts_dead_letters")
def dead_letters_are_not_counted_every_few_seconds(context: CaseContext) -> None:
    bury_one(context)
    exact, cheap = read_all_statuses(context)
    assert (exact.dead_letters, cheap.dead_letters) == (1, None)


def bury_one(context: CaseContext) -> None:
    context.fill(1)
    reader = context.open_reader()
    reader.dead_letter(reader.take_one())


@case("dates_waiting")
def the_age_of_the_oldest_message_grows(context: CaseContext) -> None:
    """It begins when the message is ready for the first time, and again by a retry."""
    context.app.declare()
    await_statuses(context, oldest=None)
    began = time.time()
    context.fill(1)
    published = assert_oldest(context, began)
    wait_for(lambda: time.time() - published > 2.1, SOON)
    context.fill(1)
    assert assert_oldest(context, began) == published
    reader = context.open_reader()
    reader.take(2)
    reader.close()
    # What a worker gives back unhandled keeps its age.
    assert assert_oldest(context, began) == published
    reader = context.open_reader()
    first, second = reader.take(2)
    reader.ack([second])
    retried = time.time()
    reader.retry(first)
    reader.close()
    assert_oldest(context, retried)


@the_age_of_the_oldest_message_grows.otherwise("dates_waiting")
def the_age_of_the_oldest_message_is_unknown(context: CaseContext) -> None:
    context.fill(1)
    await_statuses(context, waiting=1, oldest=None)


def assert_oldest(context: CaseContext, since: float) -> float:
    """Assert that the oldest message is ready since a time; return it as told.

    Kombu's lists have the time in whole seconds.
    """
    exact, cheap = (status.oldest for status in read_all_statuses(context))
    assert exact is not None and exact == cheap
    assert math.floor(since) <= exact <= time.time() + 0.5
    return exact


@case("counts_lag")
def the_lag_of_a_consumer_group_is_counted(context: CaseContext) -> None:
    context.fill(3)
    await_statuses(context, lag=3)
    reader = context.open_reader()
    reader.ack(reader.take(3))
    await_statuses(context, lag=0)


@the_lag_of_a_consumer_group_is_counted.otherwise("counts_lag")
def there_is_no_lag(context: CaseContext) -> None:
    context.fill(1)
    assert {status.lag for status in read_all_statuses(context)} == {None}


# -- suspects --------------------------------------------------------------------------


@case()
def a_suspect_is_read_in_its_lane_only(context: CaseContext) -> None:
    context.publish(context.message(b"1", id="order-1"))
    reader = context.open_reader()
    reader.suspect(reader.take_one())
    reader.expect_nothing(0.1)
    context.await_depth(0)
    context.await_depth(1, context.plan.suspects)
    lane = context.open_reader(lane=Lane.SUSPECTS, prefetch=1)
    suspect = lane.take_one()
    message = suspect.message
    assert (message.raw, message.id, message.queue) == (
        b"1",
        "order-1",
        context.plan.suspects,
    )
    assert (message.deaths, message.attempt, message.redelivered) == (0, 1, False)
    assert (message.exchange, message.routing_key) == (EXCHANGE, context.key("order"))


@case()
def deaths_are_counted_in_the_lane_and_forgotten_by_a_retry(
    context: CaseContext,
) -> None:
    context.fill(1)
    reader = context.open_reader()
    lane = context.open_reader(lane=Lane.SUSPECTS, prefetch=1)
    reader.suspect(reader.take_one())
    lane.suspect(lane.take_one(), deaths=1)
    again = lane.take_one()
    assert again.message.deaths == 1
    lane.retry(again)
    healthy = reader.get()
    assert (healthy.attempt, healthy.deaths) == (2, 0)
    lane.expect_nothing(0.1)


@case()
def the_length_of_a_lane_is_known(context: CaseContext) -> None:
    """Reading the length neither takes nor marks messages."""
    assert context.app.read_suspects(context.plan) == SuspectsStatus(0)
    make_suspects(context, 3)
    assert context.app.read_suspects(context.plan).waiting == 3
    lane = context.open_reader(lane=Lane.SUSPECTS, prefetch=1)
    assert lane.take_one().message.redelivered is False


@case("dates_suspects")
def the_age_of_a_lane_is_known(context: CaseContext) -> None:
    make_suspects(context, 3)
    assert context.app.read_suspects(context.plan).since == 1000.0
    lane = context.open_reader(lane=Lane.SUSPECTS, prefetch=3)
    first, *others = lane.take(3)
    # A suspect that killed a process is put back, and keeps its age.
    lane.suspect(first, deaths=1, now=9000.0)
    lane.ack(others)
    lane.close()
    wait_for(
        lambda: context.app.read_suspects(context.plan) == SuspectsStatus(1, 1000.0), 30
    )


@the_age_of_a_lane_is_known.otherwise("dates_suspects")
def the_age_of_a_lane_is_known_from_a_suspect_read_from_it(
    context: CaseContext,
) -> None:
    make_suspects(context, 2)
    assert context.app.read_suspects(context.plan).since is None
    lane = context.open_reader(lane=Lane.SUSPECTS, prefetch=1)
    assert own_headers.find_oldest_suspect([lane.take_one().message]) == 1000.0


def make_suspects(context: CaseContext, count: int) -> None:
    """Put ``count`` messages into the lane, with times one second apart."""
    context.fill(count)
    reader = context.open_reader()
    for number, delivery in enumerate(reader.take(count)):
        reader.suspect(delivery, now=1000.0 + number)
    reader.close()
    context.await_depth(count, context.plan.suspects)


@case()
def a_suspect_may_be_a_dead_letter(context: CaseContext) -> None:
    context.fill(1)
    reader = context.open_reader()
    reader.suspect(reader.take_one())
    lane = context.open_reader(lane=Lane.SUSPECTS, prefetch=1)
    suspect = lane.take_one()
    lane.dead_letter(suspect, reason="it killed its process")
    (letter,) = context.list_dead_letters()
    assert letter.headers[own_headers.REASON] == "it killed its process"
    assert context.app.dead_letters(context.plan).take(lambda _: True, replay=True) == 1
    again = reader.get()
    assert (again.raw, again.attempt, again.deaths) == (b"0", 1, 0)


# -- dead letters ----------------------------------------------------------------------


def make_dead_letters(
    context: CaseContext, count: int, **options: t.Any
) -> list[bytes]:
    """Publish ``count`` messages, and make each a dead letter, in order."""
    sent = context.fill(count, headers={"x-tenant": "acme"}, key="one")
    reader = context.open_reader()
    deliveries = sorted(reader.take(count), key=lambda each: int(each.message.raw))
    reader.dead_letter(*deliveries, **options)
    reader.close()
    context.await_dead_letters(count)
    return sent


@case()
def a_dead_letter_says_why_and_what_it_was(context: CaseContext) -> None:
    make_dead_letters(context, 1)
    (letter,) = context.list_dead_letters()
    assert letter.queue == context.plan.name
    assert letter.headers[own_headers.REASON] == "bad"
    assert letter.headers[own_headers.ERROR] == "builtins.ValueError: no such card"
    assert "context.py" in letter.headers[own_headers.TRACEBACK]
    assert letter.headers[own_headers.CONSUMER] == "bill"
    assert letter.headers[own_headers.ATTEMPTS] == 1
    assert letter.headers[own_headers.DIED_AT] == pytest.approx(time.time(), abs=30)
    assert "x-tenant" not in letter.headers
    assert letter.message.headers["x-tenant"] == "acme"
    assert letter.message.raw == b"0"
    assert letter.message.id
    assert (letter.message.exchange, letter.message.routing_key) == (
        EXCHANGE,
        context.key("order"),
    )
    assert context.depth() == 0


@case()
def dead_letters_are_listed_the_oldest_first_and_looking_changes_nothing(
    context: CaseContext,
) -> None:
    sent = make_dead_letters(context, 30)
    first = context.list_dead_letters()
    assert [letter.message.raw for letter in first] == sent
    assert len({letter.ref for letter in first}) == 30
    for _ in range(2):
        context.await_dead_letters(30)
        assert {letter.ref for letter in context.list_dead_letters()} == {
            letter.ref for letter in first
        }
    context.await_dead_letters(30)
    for letter in context.app.dead_letters(context.plan):
        assert letter.message.raw == sent[0]
        break
    context.await_dead_letters(30)


@case()
def dead_letters_of_a_queue_without_any_are_none(context: CaseContext) -> None:
    context.app.declare()
    letters = context.app.dead_letters(context.plan)
    assert (letters.count(), list(letters)) == (0, [])
    assert letters.take(lambda _: True, replay=True) == 0


@case()
def a_replay_goes_to_the_queue_that_failed_as_if_new(context: CaseContext) -> None:
    audit = context.plan_queue("audit", "#")
    app = context.open_app(audit)
    app.declare()
    sent = make_dead_letters(context, 12)
    looked: list[int] = []
    letters = context.app.dead_letters(context.plan)
    taken = letters.take(
        lambda letter: letter.message.raw in sent[3:6],
        replay=True,
        progress=lambda: looked.append(1),
    )
    assert (taken, len(looked)) == (3, 12)
    context.await_dead_letters(9)
    reader = context.open_reader()
    deliveries = reader.take(3)
    assert sorted(bodies(deliveries)) == sorted(sent[3:6])
    message = deliveries[0].message
    assert (message.attempt, message.deaths, message.redelivered) == (1, 0, False)
    assert message.headers["x-tenant"] == "acme"
    assert not {own_headers.REASON, own_headers.DIED_AT} & set(message.headers)
    assert (message.exchange, message.routing_key) == (EXCHANGE, context.key("order"))
    reader.expect_nothing(0.1)
    # The other queue has the published messages, and none that was replayed.
    auditor = context.open_reader(audit)
    auditor.ack(auditor.take(12))
    auditor.expect_nothing(0.1)


@case()
def one_dead_letter_is_taken_by_its_ref(context: CaseContext) -> None:
    sent = make_dead_letters(context, 5)
    letters = context.app.dead_letters(context.plan)
    wanted = context.list_dead_letters()[2]
    assert letters.take(lambda each: each.ref == wanted.ref, replay=False) == 1
    context.await_dead_letters(4)
    left = [letter.message.raw for letter in context.list_dead_letters()]
    assert sorted(left) == sorted(set(sent) - {wanted.message.raw})


@case()
def a_purge_removes_the_wanted_and_sends_nothing(context: CaseContext) -> None:
    make_dead_letters(context, 20)
    letters = context.app.dead_letters(context.plan)
    even = letters.take(lambda each: int(each.message.raw) % 2 == 0, replay=False)
    assert even == 10
    context.await_dead_letters(10)
    assert all(int(each.message.raw) % 2 for each in letters)
    assert context.depth() == 0


@case()
def a_replayed_message_may_become_a_dead_letter_again(context: CaseContext) -> None:
    make_dead_letters(context, 1, reason="first")
    (first,) = context.list_dead_letters()
    letters = context.app.dead_letters(context.plan)
    assert letters.take(lambda _: True, replay=True) == 1
    reader = context.open_reader()
    reader.dead_letter(reader.take_one(), reason="second")
    context.await_dead_letters(1)
    (second,) = context.list_dead_letters()
    assert second.headers[own_headers.REASON] == "second"
    assert second.message.id == first.message.id
    assert letters.take(lambda _: True, replay=True) == 1
    assert reader.get().raw == b"0"
    reader.expect_nothing(0.1)
    assert context.list_dead_letters() == []


@case()
def dead_letters_are_forgotten_in_time(context: CaseContext) -> None:
    make_dead_letters(context, 1, expires=600.0)
    reader = context.open_reader()
    context.publish(context.message(b"soon gone"))
    reader.dead_letter(reader.take_one(), expires=1)
    # RabbitMQ expires messages at the head of a queue only: remove the first one.
    letters = context.open_app(context.plan, dead_letter_ttl=1).dead_letters(
        context.plan
    )
    letters.take(lambda each: each.message.raw == b"0", replay=False)
    wait_for(lambda: letters.count() == 0, SOON)
    assert list(letters) == []


@case("exclusive_replays")
def two_concurrent_replays_send_each_dead_letter_once(context: CaseContext) -> None:
    make_dead_letters(context, 10)
    greenlets = [
        gevent.spawn(
            context.app.dead_letters(context.plan).take, lambda _: True, replay=True
        )
        for _ in range(2)
    ]
    gevent.joinall(greenlets, timeout=SOON, raise_error=True)
    assert sum(greenlet.value for greenlet in greenlets) == 10
    reader = context.open_reader()
    assert sorted(bodies(reader.take(10)), key=int) == [b"%d" % n for n in range(10)]
    reader.expect_nothing(0.1)


@two_concurrent_replays_send_each_dead_letter_once.otherwise("exclusive_replays")
def two_concurrent_replays_lose_no_dead_letter(context: CaseContext) -> None:
    make_dead_letters(context, 10)
    letters = context.app.dead_letters(context.plan)
    greenlets = [
        gevent.spawn(letters.take, lambda _: True, replay=True) for _ in range(2)
    ]
    gevent.joinall(greenlets, timeout=SOON, raise_error=True)
    came = bodies(
        context.open_reader().take(sum(greenlet.value for greenlet in greenlets))
    )
    assert {int(body) for body in came} == set(range(10))
    context.await_dead_letters(0)


# -- topology --------------------------------------------------------------------------


@case()
def declaring_again_changes_nothing(context: CaseContext) -> None:
    context.app.declare()
    context.fill(3)
    context.app.declare()
    context.open_app(context.plan).declare()
    assert context.depth() == 3
    assert context.app.stale_bindings() == []


@case()
def passive_declares_nothing_and_says_what_is_missing(context: CaseContext) -> None:
    passive = context.open_app(context.plan, declare="passive")
    with pytest.raises(TopologyMismatch):
        passive.declare()
    assert isinstance(
        context.publish_refused(context.message(b"1"), by=passive), TopologyMismatch
    )
    context.app.declare()
    assert context.depth() == 0
    passive.declare()
    context.publish(context.message(b"1"), by=passive)
    assert context.open_reader(by=passive).get().raw == b"1"


@case()
def never_leaves_everything_alone(context: CaseContext) -> None:
    never = context.open_app(context.plan, declare="never")
    never.declare()
    assert isinstance(
        context.publish_refused(context.message(b"1"), by=never), Unroutable
    )
    context.app.declare()
    context.publish(context.message(b"1"), by=never)
    assert context.open_reader(by=never).get().raw == b"1"


@case()
def the_depth_of_a_queue_that_is_not_there_is_none(context: CaseContext) -> None:
    name = context.key("missing")
    assert context.depth(name) == 0
    # Reading the depth does not create the queue.
    if context.capabilities.knows_missing_queues:
        message = context.message(b"1", name, exchange="")
        assert isinstance(context.publish_refused(message), Unroutable)


@case("bindings")
def a_binding_that_the_code_has_no_more_is_found_and_removed(
    context: CaseContext,
) -> None:
    queue = context.plan_queue("billing", "order.old", "order.kept")
    context.open_app(queue).declare()
    later = context.open_app(context.plan_queue("billing", "order.kept", "order.new"))
    later.declare()
    stale = [Binding(queue.name, EXCHANGE, context.key("order.old"))]
    assert later.stale_bindings() == stale
    context.publish(context.message(b"1", "order.old"), by=later)
    later.unbind(stale)
    later.unbind(stale)
    assert later.stale_bindings() == []
    old = context.message(b"1", "order.old")
    assert isinstance(context.publish_refused(old, by=later), Unroutable)
    context.publish(context.message(b"2", "order.kept"), by=later)
    context.publish(context.message(b"3", "order.new"), by=later)


@a_binding_that_the_code_has_no_more_is_found_and_removed.otherwise("bindings")
def no_binding_outlives_the_code(context: CaseContext) -> None:
    queue = context.plan_queue("billing", "order.old", "order.kept")
    context.open_app(queue).declare()
    later = context.open_app(context.plan_queue("billing", "order.kept", "order.new"))
    later.declare()
    assert later.stale_bindings() == []
    context.publish(context.message(b"1", "order.new"), by=later)
    reader = context.open_reader(later.topology.queues[0], by=later)
    context.publish(context.message(b"2", "order.old", mandatory=False), by=later)
    assert reader.get().raw == b"1"
    reader.expect_nothing()


@case("bindings")
def a_binding_to_the_exchange_without_the_prefix_is_stale(context: CaseContext) -> None:
    """Earlier versions bound there. Bindings of other deployments stay."""
    context.app.declare()
    before = context.plan_queue("staging.billing", "order")
    context.open_app(before).declare()
    staging = context.open_app(
        dataclasses.replace(before, bindings=()), queue_prefix=context.key("staging.")
    )
    stale = [Binding(before.name, EXCHANGE, context.key("order"))]
    assert staging.stale_bindings() == stale
    staging.unbind(stale)
    assert staging.stale_bindings() == []
    context.publish(context.message(b"1"))
    context.await_depth(1)
    assert staging.depth(before.name) == 0


@a_binding_to_the_exchange_without_the_prefix_is_stale.otherwise("bindings")
def no_binding_outlives_a_change_of_the_prefix(context: CaseContext) -> None:
    staging = context.open_app(context.plan, queue_prefix="staging.")
    assert staging.stale_bindings() == []


@case()
def bindings_of_other_apps_are_not_stale(context: CaseContext) -> None:
    context.app.declare()
    other = context.open_app(context.plan_queue("audit", "#"))
    other.declare()
    assert other.stale_bindings() == []
    assert context.app.stale_bindings() == []


@case("queue_arguments")
def an_argument_of_a_given_queue_is_honoured(context: CaseContext) -> None:
    plan = context.plan_queue("inbox", given=_passing(context))
    app = context.open_app(plan)
    app.declare()
    context.publish(context.message(b"1", plan.name, exchange=""), by=app)
    wait_for(lambda: context.depth(plan.name) == 0, message="it expired in its queue")


@an_argument_of_a_given_queue_is_honoured.otherwise("queue_arguments")
def an_argument_of_a_given_queue_is_refused(context: CaseContext) -> None:
    (problem,) = find_unsupported_traits(_passing(context), context.capabilities)
    assert "'x-message-ttl'" in problem
    assert "Leave it out" in problem


def _passing(context: CaseContext) -> Queue:
    exchange = Exchange(EXCHANGE, "topic")
    key = context.key("mail")
    return Queue(context.key("inbox"), exchange, routing_key=key, message_ttl=0.2)


@case()
def a_queue_of_another_project_is_used_as_given(context: CaseContext) -> None:
    """The package declares only the lanes of such a queue."""
    key = context.key("mail")
    given = Queue(context.key("inbox"), Exchange(EXCHANGE, "topic"), routing_key=key)
    plan = context.plan_queue("inbox", given=given)
    theirs = context.open_app(context.plan_queue("theirs", "mail"))
    theirs.declare()
    app = context.open_app(plan)
    app.declare()
    app.declare()
    context.publish(context.message(b"1", "mail"), by=app)
    reader = context.open_reader(plan)
    delivery = reader.take_one()
    assert delivery.message.routing_key == key
    reader.retry(delivery)
    again = reader.take_one()
    assert again.message.attempt == 2
    reader.dead_letter(again)
    (letter,) = context.list_dead_letters(plan)
    assert letter.message.raw == b"1"


# -- outages ---------------------------------------------------------------------------


@case("shared")
def a_broker_that_is_not_there_is_reported_in_time(context: CaseContext) -> None:
    """The error does not show the password. No connection was open before."""
    broker = context.open_app(context.plan, broker_url=context.broker.unreachable_url)
    began = time.monotonic()
    error = broker.publish([context.message(b"1")], 0.5)[0]
    assert isinstance(error, BrokerUnavailable | PublishTimeout)
    assert time.monotonic() - began < 3
    assert "secret" not in f"{error}{error!r}"


@case("shared", "unmarked_losses")
def a_message_of_a_lost_link_comes_again_unmarked(context: CaseContext) -> None:
    if context.broker.loses_links:
        assert not any(find_marks_after_a_loss(context))
    else:
        assert not any(find_marks_after_a_cut(context))


@a_message_of_a_lost_link_comes_again_unmarked.otherwise("unmarked_losses")
def a_message_of_a_lost_link_comes_again_marked(context: CaseContext) -> None:
    # Kafka's client reconnects without losing the link. The loss of the whole broker is
    # another case.
    if context.broker.loses_links:
        assert all(find_marks_after_a_loss(context))


def find_marks_after_a_loss(context: CaseContext) -> list[bool]:
    """Return, for each held message, whether it is marked when it comes again."""
    context.fill(5)
    reader = context.open_reader()
    held = reader.take(5)
    context.broker.cut_connections()
    reader.await_loss()
    assert all(delivery.stale for delivery in held)
    reader.close()
    again = context.open_reader()
    deliveries = again.take(5)
    assert sorted(bodies(deliveries)) == [b"%d" % n for n in range(5)]
    again.ack(deliveries)
    # The publisher reconnects without help.
    context.publish(context.message(b"after"))
    assert again.get().raw == b"after"
    return [delivery.message.redelivered for delivery in deliveries]


def find_marks_after_a_cut(context: CaseContext) -> list[bool]:
    """Do the same where a link may outlive its connection."""
    sent = context.fill(5)
    reader = context.open_reader()
    reader.take(5)
    context.broker.cut_connections()
    context.publish(context.message(b"after"))
    reader.close()
    again = context.open_reader()
    deliveries = again.take(6)
    again.ack(deliveries)
    assert sorted(bodies(deliveries)) == sorted([*sent, b"after"])
    return [delivery.message.redelivered for delivery in deliveries]


@case("survives_worker_death")
def a_message_of_a_killed_process_comes_again_marked(context: CaseContext) -> None:
    """An acknowledged message does not come again; one never delivered is unmarked."""
    context.fill(12)
    said = context.kill_process_holding(8, acked=3)
    reader = context.open_reader()
    came = {d.message.raw.decode(): d.message.redelivered for d in reader.take(9)}
    reader.expect_nothing(0.1)
    held = {each["body"] for each in said[3:]}
    assert held <= set(came)
    assert all(came[body] for body in held)
    assert not any(marked for body, marked in came.items() if body not in held)
    assert not {each["body"] for each in said[:3]} & set(came)
    assert not any(each["redelivered"] for each in said)


@case("survives_worker_death")
def a_suspect_that_kills_its_process_comes_again_marked(context: CaseContext) -> None:
    context.fill(1)
    reader = context.open_reader()
    reader.suspect(reader.take_one(), deaths=1)
    reader.close()
    context.kill_process_holding(1, Lane.SUSPECTS)
    lane = context.open_reader(lane=Lane.SUSPECTS, prefetch=1)
    suspect = lane.take_one()
    assert suspect.message.redelivered
    assert suspect.message.deaths == 1
    lane.dead_letter(suspect)
    assert len(context.list_dead_letters()) == 1


@case("durable", breaks=True)
def everything_outlives_a_kill_of_the_broker(context: CaseContext) -> None:
    """Waiting, delayed, held and dead messages survive; clients continue afterwards."""
    context.app.declare()
    context.app.declare_delays()
    context.broker.sync_declarations()
    context.publish(context.message(b"dead"))
    reader = context.open_reader(prefetch=1)
    reader.dead_letter(reader.take_one())
    context.publish(context.message(b"delayed"))
    reader.retry(reader.take_one(), delay=1)
    context.publish(context.message(b"held"))
    reader.take_one()
    context.publish(context.message(b"waiting"))
    context.broker.server.kill()
    context.broker.server.start()
    context.publish(context.message(b"after"))
    reader.close()
    again = context.open_reader()
    came = bodies(again.take(4, timeout=60))
    assert sorted(came) == [b"after", b"delayed", b"held", b"waiting"]
    context.await_dead_letters(1)
    assert [letter.message.raw for letter in context.list_dead_letters()] == [b"dead"]


@case("durable", breaks=True)
def a_broker_that_was_away_at_the_start_gets_the_bindings_later(
    context: CaseContext,
) -> None:
    """Another program can publish to a queue that the start could not declare."""
    plan = context.plan_queue("late", "late")
    late = context.open_app(plan)
    context.broker.server.kill()
    with pytest.raises(BrokerUnavailable):
        late.declare()
    context.broker.server.start()

    def connected() -> t.Any:
        with contextlib.suppress(BrokerUnavailable):
            return context.open_reader(plan, by=late)

    reader = wait_for(connected, 60)
    message = context.message(b"1", "late")
    wait_for(lambda: context.app.publish([message], SOON) == [None], 60)
    assert reader.get().raw == b"1"


@case("shared", breaks=True)
def a_broker_that_hangs_is_reported_in_time(context: CaseContext) -> None:
    app = context.open_app(context.plan, publish_timeout=0.5)
    context.app.declare()
    wait_for(lambda: app.publish([context.message(b"1")], SOON) == [None], SOON)
    with context.broker.server.frozen():
        began = time.monotonic()
        (error,) = app.publish([context.message(b"2")], 0.5)
        assert isinstance(error, PublishTimeout | BrokerUnavailable)
        assert time.monotonic() - began < 5
    context.publish(context.message(b"after"))


# -- apps ------------------------------------------------------------------------------


@case()
def a_body_too_costly_to_decode_is_a_dead_letter_at_once(context: CaseContext) -> None:
    qconsume, got = QConsume(), list[t.Any]()
    key, queue = context.key("order"), context.key("billing")
    qconsume.add_consumer("billing", got.append, name="bill", routing_key=key)
    worker = context.start_worker(qconsume, max_items=50_000)
    consumers = get_app_consumers(worker.app)
    msgpack = {"content_type": "application/msgpack"}
    bomb = {"compression": "application/x-gzip"}
    json = {"content_type": "application/json"}
    consumers.publish_many(
        [
            (key, packed(find_colliding(5_400)), msgpack),
            (key, b"[" + b"{}," * 50_000 + b"{}]", json),
            (key, zlib.compress(b"0" * 20_000_000), json | {"headers": bomb}),
            (key, b"\xef\xbb\xbf17", json),
        ]
    )
    letters = consumers.broker.dead_letters(consumers.topology.queue(queue))
    wait_for(lambda: letters.count() == 3 and got == [17], SOON, interval=0.1)
    reasons = " ".join(str(letter.headers[own_headers.REASON]) for letter in letters)
    assert "too many keys that are not texts" in reasons
    assert "more than 'QCONSUME_MAX_ITEMS' = 50000" in reasons
    assert "grows to more than 'QCONSUME_MAX_MESSAGE_SIZE'" in reasons
    assert {letter.message.attempt for letter in letters} == {1}
    assert worker.stop()


@case()
def an_app_handles_retries_and_makes_dead_letters(context: CaseContext) -> None:
    """The whole way of a message through an app, with a prefix for the queues."""
    qconsume = QConsume()
    seen: list[tuple[str, str, int]] = []

    def bill(body: str) -> None:
        seen.append((current_message.queue, body, current_message.attempt))
        if body == "bad":
            raise ValueError("no such card")

    key, queue = context.key("order"), context.key("billing")
    retry = RetryPolicy(max_attempts=2, min_delay=0.05, jitter=0)
    qconsume.add_consumer("billing", bill, name="bill", routing_key=key, retry=retry)
    worker = context.start_worker(qconsume)
    consumers = get_app_consumers(worker.app)
    id = consumers.publish_many([(key, "good"), (key, "bad")])[1]
    letters = consumers.broker.dead_letters(consumers.topology.queue(queue))
    wait_for(lambda: len(seen) == 3 and letters.count() == 1, SOON, interval=0.1)
    assert sorted(seen) == [(queue, "bad", 1), (queue, "bad", 2), (queue, "good", 1)]
    (letter,) = letters
    assert letter.message.id == id
    assert "failed 2 of 2 attempts" in letter.headers[own_headers.REASON]
    assert letters.take(lambda each: each.ref == letter.ref, replay=True) == 1
    wait_for(lambda: seen.count((queue, "bad", 2)) == 2, SOON)
    assert worker.stop()


@case()
def a_worker_that_stops_hands_on_what_it_has_not_begun(context: CaseContext) -> None:
    """No message is lost or handled twice, and no attempt is counted."""
    seen: list[tuple[int, int]] = []

    def bill(number: int) -> None:
        spend(0.01)
        seen.append((number, current_message.attempt))

    def started() -> Worker:
        qconsume = QConsume()
        key = context.key("order")
        qconsume.add_consumer(
            "billing", bill, name="bill", routing_key=key, concurrency=2
        )
        return context.start_worker(qconsume)

    first = started()
    consumers = get_app_consumers(first.app)
    consumers.publish_many([(context.key("order"), number) for number in range(60)])
    wait_for(lambda: len(seen) >= 10, SOON)
    assert first.stop()
    assert len(seen) < 60
    second = started()
    wait_for(lambda: len(seen) >= 60, SOON)
    assert second.stop()
    assert sorted(seen) == [(number, 1) for number in range(60)]


@case()
def apps_with_prefixes_of_their_own_share_nothing(context: CaseContext) -> None:
    """Queues, events, patterns, retries, delays and dead letters are separate."""
    production, staging = (
        _RecordingApp(context, "production."),
        _RecordingApp(context, "staging."),
    )
    production.publish("order.created", 1)
    staging.publish("order.created", 2)
    production.publish("billing", "bad")
    if context.capabilities.delayed_publish:
        production.publish("order.created", 3, delay=0.5)
        expected = [("order.created", 1), ("order.created", 3)]
    else:
        expected = [("order.created", 1)]
    wait_for(lambda: sorted(production.events) == expected, SOON)
    wait_for(lambda: staging.events, SOON)
    wait_for(lambda: production.letters == 1, SOON, interval=0.1)
    assert production.attempts == 2
    assert staging.events == [("order.created", 2)]
    assert (staging.attempts, staging.letters) == (0, 0)


@case()
def a_consumer_with_another_prefix_makes_no_message_routable(
    context: CaseContext,
) -> None:
    _RecordingApp(context, "staging.")
    production = context.open_app(queue_prefix=context.key("production."))
    key = "order.created"
    message = compose(production.settings.exchange, key, 1)
    error = context.publish_refused(message, by=production)
    assert isinstance(error, Unroutable)
    assert context.key("production.") in str(error)


class _RecordingApp:
    """An app with a queue prefix, which records handled and failed messages."""

    def __init__(self, context: CaseContext, prefix: str) -> None:
        self.events: list[tuple[str, int]] = []
        self.attempts = 0
        qconsume = QConsume()
        retry = RetryPolicy(max_attempts=2, min_delay=0.05, jitter=0)
        qconsume.add_consumer("billing", self._fail, name="bill", retry=retry)
        # Kafka has a topic only for a key without wildcards.
        keys = ["order.created", "order.*"]
        qconsume.add_consumer("audit", self._see, name="audit", routing_key=keys)
        worker = context.start_worker(qconsume, queue_prefix=context.key(prefix))
        self._app = get_app_consumers(worker.app)

    def publish(self, routing_key: str, body: t.Any, **options: t.Any) -> None:
        self._app.publish(routing_key, body, **options)

    @property
    def letters(self) -> int:
        queue = self._app.consumers["bill"].queue
        return self._app.broker.dead_letters(self._app.topology.queue(queue)).count()

    def _see(self, body: int) -> None:
        self.events.append((current_message.routing_key, body))

    def _fail(self, body: str) -> None:
        self.attempts += 1
        raise ValueError("no such card")


@case()
def an_ordering_is_kept_or_refused(context: CaseContext) -> None:
    """A consumer does not start if the broker cannot keep its order."""
    for ordering in ("none", "key", "partition"):
        qconsume = QConsume()
        qconsume.add_consumer("billing", print, name="bill", ordering=ordering)
        if ordering in context.capabilities.orderings:
            assert context.start_worker(qconsume).stop()
        else:
            with pytest.raises(UnsupportedByBroker, match=ordering):
                context.start_worker(qconsume)


# -- listeners -------------------------------------------------------------------------


@case()
def a_listener_is_told_the_life_of_each_message(context: CaseContext) -> None:
    """Handled, retried by the broker, dropped, dead; unroutable; interrupted.

    Other listeners raise at each event, which changes nothing.
    """
    qconsume, recorder = QConsume(), Recorder()
    traced: list[t.Any] = []
    listeners = [*make_raisers(SystemExit), recorder, *make_raisers(OSError)]

    def bill(body: str) -> None:
        traced.append(current_message.headers.get("traced"))
        if body == "retried" and current_message.attempt == 1:
            raise Retry(1.5)
        if body in OUTCOMES:
            raise OUTCOMES[body]
        if body == "interrupted":
            hang()

    key = context.key("order")
    qconsume.add_consumer("billing", bill, name="bill", routing_key=key)
    worker = context.start_worker(qconsume, listeners=listeners)
    wait_for(lambda: worker.ready, SOON)
    app = get_app_consumers(worker.app)
    for body in ("good", "retried", *OUTCOMES):
        app.publish(key, body)
    with pytest.raises(Unroutable):
        app.publish(context.key("nowhere"), 1)
    wait_for(lambda: count_settled(recorder) == SETTLED, SOON)
    app.publish(key, "interrupted")
    wait_for(lambda: worker.busy, SOON)
    assert worker.stop(timeout=0) is False

    assert set(traced) == {"yes"}  # A listener added the header.
    assert [each[-1] for each in recorder("published")][:4] == [[None]] * 4
    assert isinstance(recorder("published")[4][-1][0], Unroutable)
    decided = collections.Counter(each[3] for each in recorder("decided"))
    assert decided == {Ack: 2, Retry: 1, Drop: 1, Reject: 1}
    results = [each[-1] for each in recorder("handled")]
    assert results.count(None) == 1 and len(results) == 6
    assert recorder("lost", "suspected", "disconnected", "failed") == []
    assert recorder("worker_stopped") == [("worker_stopped", worker, False)]


OUTCOMES = {"dropped": Drop("too old"), "dead": Reject("no such card")}
#: How many messages each action settles: good, retried and dropped ones by an ack.
SETTLED = {"ack": 3, "retry": 1, "dead-letter": 1}


def count_settled(recorder: Recorder) -> dict[str, int]:
    """Return how many messages each action has settled."""
    counts = collections.Counter[str]()
    for _, _, action, _, errors in recorder("settled"):
        counts[action] += errors.count(None)
    return dict(counts)


@case("survives_worker_death")
def a_listener_is_told_suspects(context: CaseContext) -> None:
    qconsume, recorder = QConsume(), Recorder()
    context.publish(context.message(b"1", context.plan.name, exchange=""))
    context.kill_process_holding(1)
    qconsume.add_consumer("billing", print, name="bill")
    worker = context.start_worker(qconsume, listeners=[recorder])
    wait_for(lambda: count_settled(recorder) == {"suspect": 1, "ack": 1}, 60)
    assert recorder("suspected") == [("suspected", "bill", False)]
    assert recorder("decided") == [("decided", "bill", 1, Ack)]
    assert worker.stop()


@case("shared")
def a_listener_is_told_of_lost_connections(context: CaseContext) -> None:
    """A message that is handled meanwhile comes again, and is settled then."""
    qconsume, recorder, go = QConsume(), Recorder(), Event()
    qconsume.add_consumer("billing", lambda body: go.wait(), name="bill")
    worker = context.start_worker(qconsume, listeners=[recorder])
    wait_for(lambda: len(recorder("connected")) == 2, SOON)
    names = {each[1:] for each in recorder("connected")}
    queue = context.plan.name
    assert names == {("bill", queue), ("bill (suspects)", context.plan.suspects)}
    get_app_consumers(worker.app).publish(queue, 1, exchange="")
    wait_for(lambda: worker.busy, SOON)
    if context.broker.loses_links:  # Kafka's client reconnects by itself.
        context.broker.cut_connections()
        wait_for(lambda: len(recorder("connected")) >= 4, SOON)
        assert {each[1:] for each in recorder("disconnected")} == names
    go.set()
    wait_for(lambda: count_settled(recorder) == {"ack": 1}, SOON)
    # Where the loss leaves no mark, the message is handled twice.
    assert {each[3] for each in recorder("decided")} == {Ack}
    assert worker.stop()
