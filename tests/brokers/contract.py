"""What every broker must do, as cases; a capability may exclude a broker from one.

A case names what it needs of the broker's record. Where the record says no, the case is
*excluded*: what it does ``otherwise`` shows that the broker is as its record says, and
the run reports it as excluded, with the capability that is missing.
"""

from __future__ import annotations

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
from kombu import Exchange
from kombu import Queue

from flask_qconsume import TOMBSTONE
from flask_qconsume import Message
from flask_qconsume import QConsume
from flask_qconsume import RetryPolicy
from flask_qconsume import current_message
from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.base import SuspectsStatus
from flask_qconsume.broker.compose import compose
from flask_qconsume.broker.given_queues import find_unsupported_traits
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
from ..waiting import wait_for
from .stage import EXCHANGE
from .stage import SOON
from .stage import Stage
from .stage import bodies

Check = t.Callable[[Stage], None]


class Excluded(Exception):
    """The case does not hold on this broker, and its record says so."""


class Case:
    """One thing that a broker must do, as a function of a stage.

    :param needs: Fields of the record that must say yes.
    :param breaks: Whether it freezes or stops the server.
    """

    def __init__(self, check: Check, needs: tuple[str, ...], breaks: bool) -> None:
        self.check = check
        self.name = check.__name__
        self.needs = needs
        self.breaks = breaks
        self._instead: dict[str, Check] = {}

    def otherwise(self, capability: str) -> t.Callable[[Check], Check]:
        """What holds where the broker has not this capability."""
        assert capability in self.needs

        def decorate(check: Check) -> Check:
            self._instead[capability] = check
            return check

        return decorate

    def run(self, stage: Stage) -> None:
        """Run it.

        :raises Excluded: if the record excludes it, and what holds instead held.
        """
        for capability in self.needs:
            if not getattr(stage.record, capability):
                if capability in self._instead:
                    self._instead[capability](stage)
                label = {fact.name: fact.short for fact in stage.record.facts}
                raise Excluded(f"{stage.record.title} has no {label[capability]}")
        self.check(stage)


#: All of them, by name, in their order.
CASES: dict[str, Case] = {}


def case(*needs: str, breaks: bool = False) -> t.Callable[[Check], Case]:
    """Make a case of a function."""

    def decorate(check: Check) -> Case:
        made = Case(check, needs, breaks)
        assert made.name not in CASES
        CASES[made.name] = made
        return made

    return decorate


# -- what arrives ----------------------------------------------------------------------


@case()
def a_message_arrives_as_it_was_sent(stage: Stage) -> None:
    sent = stage.message(
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
    stage.publish(sent)
    message = stage.hand().take_one().message
    assert message.raw == b'{"n": 1}'
    assert (message.id, message.key) == ("order-1", "customer-1")
    assert (message.headers["x-tenant"], message.headers["n"]) == ("acme", 7)
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.timestamp == pytest.approx(time.time(), abs=10)
    assert message.expires_at == pytest.approx(time.time() + 60, abs=10)
    assert {**message.properties, **sent.properties} == message.properties
    assert (message.exchange, message.routing_key) == (EXCHANGE, stage.key("order"))
    assert message.queue == stage.plan.name
    assert (message.attempt, message.deaths, message.redelivered) == (1, 0, False)


@case()
def bodies_of_any_bytes_arrive(stage: Stage) -> None:
    sent = [b"", b"\x00", b"\xff\xfe", bytes(range(256)) * 4, b"1" * 1_000_000]
    stage.publish(*(stage.message(body) for body in sent))
    hand = stage.hand()
    deliveries = hand.take(len(sent))
    assert sorted(bodies(deliveries)) == sorted(sent)
    # A dead letter is larger than what it was, and none may be lost by that.
    hand.bury(*deliveries)
    letters = stage.letters()
    assert sorted(letter.message.raw for letter in letters) == sorted(sent)


@case()
def headers_of_any_plain_values_arrive(stage: Stage) -> None:
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
    stage.publish(stage.message(b"1", headers=sent, key="schlüssel", id="nº 1"))
    message = stage.hand().get()
    assert {**message.headers, **sent} == message.headers
    assert [type(message.headers[name]) for name in sent] == list(
        map(type, sent.values())
    )
    assert (message.key, message.id) == ("schlüssel", "nº 1")


@case("foreign")
def a_message_of_a_foreign_program_arrives(stage: Stage) -> None:
    """No id, no type, no header of ours: it is handled as any other."""
    stage.app.declare()
    stage.place.send(stage.plan, b'{"n": 1}')
    hand = stage.hand()
    delivery = hand.take_one()
    message = delivery.message
    assert (message.raw, message.id, message.content_type) == (b'{"n": 1}', None, None)
    assert (message.attempt, message.redelivered) == (1, False)
    assert message.queue == stage.plan.name
    hand.retry(delivery)
    again = hand.take_one()
    assert (again.message.raw, again.message.id) == (b'{"n": 1}', None)
    assert again.message.attempt == 2
    hand.bury(again)
    (letter,) = stage.letters()
    assert (letter.message.raw, letter.message.id) == (b'{"n": 1}', None)
    assert letter.ref


@case()
def a_compressed_body_is_read_and_replayed_as_it_came(stage: Stage) -> None:
    raw = zlib.compress(gzip.compress(b'{"n": 1}'))
    sent = stage.message(
        raw,
        content_type="application/json",
        headers={"compression": "application/x-gzip"},
    )
    stage.publish(dataclasses.replace(sent, content_encoding="gzip"))
    hand = stage.hand()
    delivery = hand.take_one()
    assert decoded(delivery.message) == {"n": 1}
    hand.retry(delivery)
    hand.bury(hand.take_one())
    (letter,) = stage.letters()
    decoders = BUILT_IN.decoders()
    assert json.loads(format_json(letter, decoders, whole=True))["body"] == {"n": 1}
    stage.app.dead_letters(stage.plan).take(lambda letter: True, replay=True)
    message = hand.get()
    assert (message.raw, message.content_encoding) == (raw, "gzip")
    assert decoded(message) == {"n": 1}


def decoded(message: Message) -> t.Any:
    return decode(message, BUILT_IN.decoders(), 1_000)


@case("tombstones")
def a_tombstone_arrives(stage: Stage) -> None:
    stage.publish(stage.message(TOMBSTONE, key="customer-1"))
    message = stage.hand().get()
    assert message.tombstone
    assert message.key == "customer-1"


@a_tombstone_arrives.otherwise("tombstones")
def a_tombstone_is_refused(stage: Stage) -> None:
    with pytest.raises(UnsupportedByBroker):
        stage.app.publish([stage.message(TOMBSTONE, key="customer-1")], SOON)


# -- publishing ------------------------------------------------------------------------


@case()
def what_is_confirmed_is_in_its_queue(stage: Stage) -> None:
    stage.fill(7)
    assert stage.depth() == 7


@case()
def publishing_declares_what_it_needs(stage: Stage) -> None:
    """No event may find no queue, so nobody has to declare beforehand."""
    stage.publish(stage.message(b"first"))
    assert stage.hand().get().raw == b"first"


@case()
def a_message_for_nobody_is_an_error_of_its_own(stage: Stage) -> None:
    sent = [
        stage.message(b"1"),
        stage.message(b"2", "nobody"),
        stage.message(b"3", "nobody", mandatory=False),
        stage.message(b"4"),
    ]
    errors = stage.app.publish(sent, SOON)
    assert [type(each) for each in errors] == [
        type(None),
        Unroutable,
        type(None),
        type(None),
    ]
    assert stage.key("nobody") in str(errors[1])
    assert "mandatory=False" in str(errors[1])
    hand = stage.hand()
    assert sorted(bodies(hand.take(2))) == [b"1", b"4"]
    hand.nothing_comes()


@case()
def each_queue_that_is_bound_gets_one_copy(stage: Stage) -> None:
    twice = stage.planned("twice", "event", "#.event", "#")
    once = stage.planned("once", "event")
    other = stage.planned("other", "something.else")
    app = stage.opened(twice, once, other)
    app.declare()
    stage.publish(stage.message(b"1", "event"), by=app)
    hands = [stage.hand(plan) for plan in (twice, once, other)]
    assert [hand.get().raw for hand in hands[:2]] == [b"1", b"1"]
    for hand in hands:
        hand.nothing_comes(0.1)


@case()
def a_queue_gets_a_copy_of_its_own_to_settle(stage: Stage) -> None:
    """What one consumer does with an event is nothing to another one."""
    audit = stage.planned("audit", "order")
    app = stage.opened(audit)
    app.declare()
    stage.publish(stage.message(b"1"))
    first, second = stage.hand(), stage.hand(audit)
    first.bury(first.take_one())
    second.retry(second.take_one())
    assert second.get().attempt == 2
    stage.await_depth(0)
    first.nothing_comes(0.1)


PATTERNS = {
    "order.#": {"order", "order.new", "order.new.eu"},
    "order.*": {"order.new"},
    "*.new": {"order.new"},
    "#.new": {"order.new", "new"},
    "order.#.eu": {"order.new.eu"},
    "#": {"order", "order.new", "order.new.eu", "new", "orders"},
}


@case()
def patterns_mean_what_amqp_says(stage: Stage) -> None:
    """``order.#`` matches ``order`` too, which kombu's own matcher misses."""
    keys = sorted(PATTERNS["#"])
    literal = stage.planned("literal", *keys)
    plans = {
        pattern: stage.planned(f"q{number}", pattern)
        for number, pattern in enumerate(PATTERNS)
    }
    app = stage.opened(literal, *plans.values())
    app.declare()
    stage.publish(*(stage.message(key.encode(), key) for key in keys), by=app)
    for pattern, plan in plans.items():
        hand = stage.hand(plan)
        expected = PATTERNS[pattern]
        came = {raw.decode() for raw in bodies(hand.take(len(expected)))}
        assert came == expected, pattern
        hand.nothing_comes(0.05)
        hand.close()


@case()
def a_queue_is_reached_by_its_name(stage: Stage) -> None:
    """By the default exchange, and nobody else gets it."""
    audit = stage.planned("audit", "#")
    app = stage.opened(audit)
    app.declare()
    stage.app.declare()
    stage.publish(stage.message(b"1", stage.plan.name, exchange=""))
    message = stage.hand().get()
    assert (message.raw, message.queue) == (b"1", stage.plan.name)
    assert app.depth(audit.name) == 0


@case("knows_missing_queues")
def a_queue_that_is_not_there_is_an_error(stage: Stage) -> None:
    message = stage.message(b"1", stage.key("nobody"), exchange="")
    assert isinstance(stage.refused(message), Unroutable)
    assert stage.depth(stage.key("nobody")) == 0


@a_queue_that_is_not_there_is_an_error.otherwise("knows_missing_queues")
def a_queue_is_there_once_it_is_published_to(stage: Stage) -> None:
    name = stage.key("nobody")
    stage.publish(stage.message(b"1", name, exchange=""))
    assert stage.depth(name) == 1


@case("exchanges")
def another_exchange_is_published_to(stage: Stage) -> None:
    theirs = Exchange(stage.key("theirs"), "direct")
    given = Queue(stage.key("inbox"), theirs, routing_key=stage.key("mail"))
    plan = stage.planned("inbox", given=given)
    app = stage.opened(plan)
    app.declare()
    stage.publish(stage.message(b"1", "mail", exchange=theirs), by=app)
    message = stage.hand(plan).get()
    assert (message.exchange, message.routing_key) == (theirs.name, stage.key("mail"))
    assert isinstance(
        stage.refused(stage.message(b"1", "mail", exchange=stage.key("no"))),
        Unroutable,
    )


@another_exchange_is_published_to.otherwise("exchanges")
def another_exchange_is_refused(stage: Stage) -> None:
    refused_before_anything_is_sent(stage, exchange="another")


def refused_before_anything_is_sent(stage: Stage, **options: t.Any) -> None:
    with pytest.raises(UnsupportedByBroker, match="Leave"):
        stage.app.publish([stage.message(b"1"), stage.message(b"2", **options)], SOON)
    stage.app.declare()
    assert stage.depth() == 0


@case()
def many_messages_of_one_call_all_arrive(stage: Stage) -> None:
    sent = stage.fill(1_000)
    hand = stage.hand(prefetch=1_000)
    deliveries = hand.take(1_000)
    assert sorted(bodies(deliveries)) == sorted(sent)
    hand.ack(deliveries)


@case()
def many_greenlets_publish_at_once(stage: Stage) -> None:
    def some(start: int) -> None:
        for number in range(start, start + 5):
            stage.publish(stage.message(b"%d" % number))

    greenlets = [gevent.spawn(some, number * 5) for number in range(20)]
    gevent.joinall(greenlets, timeout=SOON, raise_error=True)
    came = bodies(stage.hand().take(100))
    assert sorted(came, key=int) == [b"%d" % n for n in range(100)]


@case()
def publishing_after_a_close_opens_anew(stage: Stage) -> None:
    stage.fill(1)
    stage.app.close()
    stage.app.close()
    stage.fill(1)
    stage.await_depth(2)


@case("expires_unread")
def what_nobody_reads_in_time_goes_away(stage: Stage) -> None:
    stage.publish(stage.message(b"1", expires=0.2))
    stage.await_depth(0)


@what_nobody_reads_in_time_goes_away.otherwise("expires_unread")
def what_comes_too_late_says_so(stage: Stage) -> None:
    """It is dropped where it is handled."""
    stage.publish(stage.message(b"1", expires=0.05))
    gevent.sleep(0.1)
    message = stage.hand().get()
    assert message.expires_at is not None
    assert message.expires_at < time.time()


@case("priorities")
def the_highest_priority_comes_first(stage: Stage) -> None:
    """Within one priority the oldest. RabbitMQ wants a queue that is made for it."""
    theirs = Exchange(stage.key("theirs"), "direct")
    key = stage.key("mail")
    given = Queue(stage.key("inbox"), theirs, routing_key=key, max_priority=9)
    plan = stage.planned("inbox", given=given)
    app = stage.opened(plan)
    app.declare()
    for body, priority in [(b"1", 0), (b"2", 9), (b"3", 4), (b"4", 9), (b"5", 0)]:
        stage.publish(
            stage.message(body, "mail", exchange=theirs, priority=priority), by=app
        )
    hand = stage.hand(plan)
    deliveries = hand.take(5)
    assert bodies(deliveries) == [b"2", b"4", b"3", b"1", b"5"]
    assert [d.message.priority for d in deliveries] == [9, 9, 4, 0, 0]
    hand.ack(deliveries[1:])
    # A retry keeps it.
    hand.retry(deliveries[0])
    assert hand.get().priority == 9


@the_highest_priority_comes_first.otherwise("priorities")
def a_priority_is_refused(stage: Stage) -> None:
    refused_before_anything_is_sent(stage, priority=5)


@case()
def a_delay_beyond_the_longest_is_refused(stage: Stage) -> None:
    longest = stage.record.max_delay
    if math.isinf(longest):
        raise Excluded(f"{stage.record.title} holds back for any time")
    refused_before_anything_is_sent(stage, delay=longest + 1)


@case("delayed_publish")
def a_delayed_message_comes_when_it_is_due(stage: Stage) -> None:
    hand = stage.hand()
    began = time.monotonic()
    stage.publish(stage.message(b"late", delay=0.7), stage.message(b"now"))
    assert hand.get().raw == b"now"
    late = hand.get()
    assert late.raw == b"late"
    assert 0.65 < time.monotonic() - began < 0.7 + lateness(stage, 0.7)
    assert (late.exchange, late.routing_key) == (EXCHANGE, stage.key("order"))
    assert (late.attempt, late.redelivered) == (1, False)


@a_delayed_message_comes_when_it_is_due.otherwise("delayed_publish")
def a_delayed_message_is_refused(stage: Stage) -> None:
    refused_before_anything_is_sent(stage, delay=1)


def lateness(stage: Stage, delay: float) -> float:
    """What a delay may be late by, on a machine that has other things to do."""
    return (1.0 if stage.record.exact_delays else max(delay, 1.0)) + 1.0


@case("unattended_delays")
def what_is_due_moves_on_by_itself(stage: Stage) -> None:
    """No worker runs; the queue fills nevertheless."""
    stage.app.declare()
    stage.publish(stage.message(b"1", stage.plan.name, exchange="", delay=2))
    assert stage.depth() == 0
    stage.await_depth(1)


@what_is_due_moves_on_by_itself.otherwise("unattended_delays")
def what_is_due_comes_once_somebody_reads(stage: Stage) -> None:
    stage.app.declare()
    stage.publish(stage.message(b"1", stage.plan.name, exchange="", delay=0.3))
    gevent.sleep(0.4)
    assert stage.hand().get().raw == b"1"


# -- reading and settling --------------------------------------------------------------


@case("in_order")
def messages_come_in_the_order_of_their_publishing(stage: Stage) -> None:
    sent = stage.fill(300)
    assert bodies(stage.hand(prefetch=300).take(300)) == sent


@messages_come_in_the_order_of_their_publishing.otherwise("in_order")
def messages_of_one_key_come_in_order(stage: Stage) -> None:
    sent = stage.fill(300, key="one")
    assert bodies(stage.hand(prefetch=300).take(300)) == sent


@case()
def what_is_acknowledged_is_gone(stage: Stage) -> None:
    stage.fill(20)
    hand = stage.hand()
    hand.ack(hand.take(20))
    hand.close()
    stage.await_depth(0)
    stage.hand().nothing_comes()


@case()
def acknowledgements_in_any_order_leave_what_is_open(stage: Stage) -> None:
    stage.fill(100)
    hand = stage.hand()
    deliveries = hand.take(100)
    kept = deliveries.pop(42)
    hand.ack(deliveries[90:])
    for delivery in reversed(deliveries[80:90]):
        hand.ack([delivery])
    hand.ack(list(reversed(deliveries[:80])))
    hand.close()
    again = stage.hand()
    assert again.take_one().message.raw == kept.message.raw
    again.nothing_comes(0.1)


@case()
def acknowledgements_of_the_last_moment_count(stage: Stage) -> None:
    stage.fill(200)
    hand = stage.hand(prefetch=200)
    for delivery in hand.take(200)[1:]:
        hand.ack([delivery])
    hand.close()
    again = stage.hand(prefetch=200)
    assert len(again.take(1)) == 1
    again.nothing_comes(0.1)


@case()
def settling_twice_harms_nobody(stage: Stage) -> None:
    stage.fill(3)
    hand = stage.hand()
    first, second, third = hand.take(3)
    hand.ack([second, second])
    hand.ack([second])
    hand.ack([third])
    stage.publish(stage.message(b"after"))
    assert hand.get().raw == b"after"
    hand.close()
    assert stage.hand().take_one().message.raw == first.message.raw


@case()
def a_settlement_of_a_closed_link_does_nothing(stage: Stage) -> None:
    """Its tag may by then be somebody else's message."""
    stage.fill(1)
    link = stage.link()
    (delivery,) = read_one(link)
    link.close()
    assert delivery.stale
    hand = stage.hand()
    (same,) = hand.take(1)
    assert not same.stale
    try:
        link.ack([delivery])
    except BrokerError as error:
        assert "closed" in str(error)
    hand.close()
    again = stage.hand().take_one()
    assert again.message.raw == delivery.message.raw


def read_one(link: t.Any) -> t.Any:
    with gevent.Timeout(SOON, AssertionError("no message came")):
        while not (found := link.read(1)):
            pass
    return found


@case()
def no_more_is_fetched_than_there_is_room_for(stage: Stage) -> None:
    """Nobody holds what he cannot handle: another one gets it."""
    stage.fill(20)
    hand = stage.hand(prefetch=3)
    held = hand.take(3)
    hand.nothing_comes()
    hand.ack(held[:2])
    assert len(hand.take(2)) == 2
    hand.nothing_comes(0.1)


@case()
def two_links_share_a_queue_without_doubles(stage: Stage) -> None:
    hands = [stage.hand(prefetch=5) for _ in range(2)]
    sent = stage.fill(60)
    came: list[bytes] = []

    def all_came() -> bool:
        for hand in hands:
            new = hand.take(len(hand.waiting()))
            came.extend(bodies(new))
            hand.ack(new)
        return len(came) >= len(sent)

    wait_for(all_came, SOON, message=lambda: f"{len(came)} came")
    assert sorted(came, key=int) == sent
    for hand in hands:
        hand.nothing_comes(0.1)


@case()
def closing_wakes_who_reads(stage: Stage) -> None:
    link = stage.link()

    def read() -> None:
        try:
            while not link.closed:
                link.read(1)
        except BrokerUnavailable:
            return

    reader = gevent.spawn(read)
    gevent.sleep(0.05)
    began = time.monotonic()
    link.close()
    link.close()
    reader.get(timeout=5)
    assert time.monotonic() - began < 3


@case()
def a_paused_link_fetches_no_more_and_settles_what_it_has(stage: Stage) -> None:
    stage.fill(1)
    hand = stage.hand()
    held = hand.take(1)
    hand.link.pause()
    stage.publish(stage.message(b"later"))
    hand.nothing_comes()
    hand.ack(held)
    hand.close()
    assert stage.hand().get().raw == b"later"


@case("hands_over")
def what_is_released_is_there_for_others_at_once(stage: Stage) -> None:
    sent = stage.fill(10)
    hand = stage.hand()
    held = hand.take(10)
    hand.release(held[4:])
    other = stage.hand()
    assert sorted(bodies(other.take(6))) == sorted(bodies(held[4:]))
    hand.ack(held[:4])
    hand.close()
    other.nothing_comes(0.1)
    assert len(sent) == 10


@what_is_released_is_there_for_others_at_once.otherwise("hands_over")
def what_is_released_is_there_for_others_after_the_close(stage: Stage) -> None:
    stage.fill(10)
    hand = stage.hand()
    held = hand.take(10)
    hand.release(held[4:])
    hand.ack(held[:4])
    hand.close()
    other = stage.hand()
    assert sorted(bodies(other.take(6))) == sorted(bodies(held[4:]))
    other.nothing_comes(0.1)


@case("keeps_place")
def what_is_given_back_keeps_its_place(stage: Stage) -> None:
    stage.fill(20, key="one")
    hand = stage.hand(prefetch=10)
    held = hand.take(10)
    hand.ack(held[3:5])
    hand.close()
    expected = [b"%d" % n for n in (0, 1, 2, *range(5, 20))]
    came = bodies(stage.hand().take(18))
    assert came == expected, came


@what_is_given_back_keeps_its_place.otherwise("keeps_place")
def what_is_given_back_comes_again(stage: Stage) -> None:
    stage.fill(20, key="one")
    hand = stage.hand(prefetch=10)
    held = hand.take(10)
    hand.ack(held[3:5])
    hand.close()
    gone = bodies(held[3:5])
    came = bodies(stage.hand().take(18))
    assert sorted([*came, *gone], key=int) == [b"%d" % n for n in range(20)]


@case("keeps_place")
def one_at_a_time_the_order_holds_over_a_stop(stage: Stage) -> None:
    sent = stage.fill(6, key="one")
    came = []
    for _ in range(3):
        hand = stage.hand(prefetch=1)
        came.append(hand.get().raw)
        came.append(hand.get().raw)
        hand.take(1) if len(came) < 6 else None
        hand.close()
    assert came == sent


@case("unmarked_stops")
def what_a_stop_gives_back_is_not_marked(stage: Stage) -> None:
    assert not any(marks_after_a_stop(stage))


@what_a_stop_gives_back_is_not_marked.otherwise("unmarked_stops")
def what_a_stop_gives_back_is_marked(stage: Stage) -> None:
    assert all(marks_after_a_stop(stage))


def marks_after_a_stop(stage: Stage) -> list[bool]:
    stage.fill(3)
    hand = stage.hand()
    hand.take(3)
    hand.close()
    return [d.message.redelivered for d in stage.hand().take(3)]


@case("counts_deliveries")
def the_count_of_deliveries_is_among_the_headers(stage: Stage) -> None:
    marks_after_a_stop(stage)
    stage._hands[-1].close()
    assert stage.hand().take_one().message.headers["x-delivery-count"] == 2


@the_count_of_deliveries_is_among_the_headers.otherwise("counts_deliveries")
def no_count_of_deliveries_is_among_the_headers(stage: Stage) -> None:
    marks_after_a_stop(stage)
    stage._hands[-1].close()
    assert "x-delivery-count" not in stage.hand().take_one().message.headers


# -- retries ---------------------------------------------------------------------------


@case()
def a_retry_keeps_all_but_its_attempt(stage: Stage) -> None:
    sent = stage.message(
        b"1", headers={"x-tenant": "acme"}, key="k", expires=60, id="order-1"
    )
    stage.publish(dataclasses.replace(sent, properties={"correlation_id": "c"}))
    hand = stage.hand()
    delivery = hand.take_one()
    hand.retry(delivery)
    old, new = delivery.message, hand.get()
    assert new.attempt == 2
    for name in ("id", "raw", "key", "exchange", "routing_key", "queue"):
        assert getattr(new, name) == getattr(old, name), name
    assert new.content_type == old.content_type
    assert new.properties["correlation_id"] == "c"
    assert new.headers["x-tenant"] == "acme"
    assert new.timestamp == pytest.approx(old.timestamp, abs=1)
    assert new.expires_at == pytest.approx(old.expires_at, abs=1)
    assert not new.redelivered
    hand.nothing_comes(0.1)


@case()
def a_header_that_no_copy_can_carry_stays_behind_and_nothing_is_lost(
    stage: Stage,
) -> None:
    """Hooks may change headers; what is no plain value is told by its name.

    It is left out, or its text is there; in memory nothing is written down.
    """
    stage.fill(1)
    hand = stage.hand()
    delivery = hand.take_one()
    headers = {"x-object": object(), "x-tenant": "acme"}
    hand.forward(Forward(delivery, Lane.MAIN, headers))
    copy = hand.get()
    if copy.headers.get("x-object") is not headers["x-object"]:
        assert copy.headers[own_headers.CHANGED] == "x-object"
    assert copy.headers["x-tenant"] == "acme"
    assert copy.raw == b"0"


@case()
def a_delayed_retry_comes_when_it_is_due(stage: Stage) -> None:
    stage.fill(1)
    hand = stage.hand()
    delivery = hand.take_one()
    began = time.monotonic()
    hand.retry(delivery, delay=1.2)
    again = hand.get()
    took = time.monotonic() - began
    assert 1.15 < took < 1.2 + lateness(stage, 1.2)
    assert (again.raw, again.attempt, again.redelivered) == (b"0", 2, False)
    assert (again.exchange, again.routing_key) == (EXCHANGE, stage.key("order"))


@case("exact_delays")
def a_delay_is_exact_behind_a_longer_one(stage: Stage) -> None:
    assert behind_a_longer_one(stage) < 1.1 + 1.0


@a_delay_is_exact_behind_a_longer_one.otherwise("exact_delays")
def a_delay_is_late_by_its_own_length_at_most(stage: Stage) -> None:
    assert behind_a_longer_one(stage) < 1.1 * 2 + 1.0


def behind_a_longer_one(stage: Stage) -> float:
    """The seconds that a delay of 1.1 s takes behind one of 1.9 s, of the same step."""
    stage.fill(2)
    hand = stage.hand()
    first, second = hand.take(2)
    began = time.monotonic()
    hand.retry(first, delay=1.9)
    hand.retry(second, delay=1.1)
    came = {}
    for _ in range(2):
        raw = hand.get().raw
        came[raw] = time.monotonic() - began
    assert came[first.message.raw] > 1.85
    assert came[second.message.raw] > 1.05
    return came[second.message.raw]


@case()
def a_short_retry_is_not_behind_a_long_one(stage: Stage) -> None:
    stage.fill(2)
    hand = stage.hand(prefetch=1)
    hand.retry(hand.take_one(), delay=30)
    second = hand.take_one()
    hand.retry(second, delay=0.3)
    stage.publish(stage.message(b"new"))
    came = {hand.get(5).raw, hand.get(5).raw}
    assert came == {second.message.raw, b"new"}


@case()
def a_retry_goes_to_the_queue_that_failed_only(stage: Stage) -> None:
    audit = stage.planned("audit", "#")
    stage.opened(audit).declare()
    stage.publish(stage.message(b"1"))
    hand = stage.hand()
    hand.retry(hand.take_one())
    assert hand.get().attempt == 2
    other = stage.hand(audit)
    assert other.get().attempt == 1
    other.nothing_comes(0.1)


@case()
def attempts_are_counted_over_many_retries(stage: Stage) -> None:
    """A broker may drop what seems to go round in circles."""
    stage.fill(1)
    hand = stage.hand()
    for attempt in range(1, 7):
        delivery = hand.take_one()
        assert delivery.message.attempt == attempt
        hand.retry(delivery, delay=0.05 * (attempt % 2))
    assert hand.get().attempt == 7


@case()
def a_retry_outlives_a_stop(stage: Stage) -> None:
    """It is the broker that holds it, no process of ours."""
    stage.fill(1)
    hand = stage.hand()
    hand.retry(hand.take_one(), delay=0.5)
    hand.close()
    assert stage.hand().get().attempt == 2


# -- suspects --------------------------------------------------------------------------


@case()
def a_suspect_is_read_in_its_lane_only(stage: Stage) -> None:
    stage.publish(stage.message(b"1", id="order-1"))
    hand = stage.hand()
    hand.suspect(hand.take_one())
    hand.nothing_comes(0.1)
    stage.await_depth(0)
    stage.await_depth(1, stage.plan.suspects)
    lane = stage.hand(lane=Lane.SUSPECTS, prefetch=1)
    suspect = lane.take_one()
    message = suspect.message
    assert (message.raw, message.id, message.queue) == (
        b"1",
        "order-1",
        stage.plan.suspects,
    )
    assert (message.deaths, message.attempt, message.redelivered) == (0, 1, False)
    assert (message.exchange, message.routing_key) == (EXCHANGE, stage.key("order"))


@case()
def deaths_are_counted_in_the_lane_and_forgotten_by_a_retry(stage: Stage) -> None:
    stage.fill(1)
    hand = stage.hand()
    lane = stage.hand(lane=Lane.SUSPECTS, prefetch=1)
    hand.suspect(hand.take_one())
    lane.suspect(lane.take_one(), deaths=1)
    again = lane.take_one()
    assert again.message.deaths == 1
    lane.retry(again)
    healthy = hand.get()
    assert (healthy.attempt, healthy.deaths) == (2, 0)
    lane.nothing_comes(0.1)


@case()
def the_length_of_a_lane_is_known(stage: Stage) -> None:
    """Looking at it takes none of them, and marks none."""
    assert stage.app.read_suspects(stage.plan) == SuspectsStatus(0)
    suspected(stage, 3)
    assert stage.app.read_suspects(stage.plan).waiting == 3
    lane = stage.hand(lane=Lane.SUSPECTS, prefetch=1)
    assert lane.take_one().message.redelivered is False


@case("dates_suspects")
def the_age_of_a_lane_is_known(stage: Stage) -> None:
    suspected(stage, 3)
    assert stage.app.read_suspects(stage.plan).since == 1000.0
    lane = stage.hand(lane=Lane.SUSPECTS, prefetch=1)
    first = lane.take_one()
    # It is as old as it was when it is put back, having killed a process.
    lane.suspect(first, deaths=1, now=9000.0)
    lane.get()
    lane.get()
    lane.close()
    wait_for(
        lambda: stage.app.read_suspects(stage.plan) == SuspectsStatus(1, 1000.0), 30
    )


@the_age_of_a_lane_is_known.otherwise("dates_suspects")
def the_age_of_a_lane_is_known_to_who_has_one_in_hand(stage: Stage) -> None:
    suspected(stage, 2)
    assert stage.app.read_suspects(stage.plan).since is None
    lane = stage.hand(lane=Lane.SUSPECTS, prefetch=1)
    assert own_headers.find_oldest_suspect([lane.take_one().message]) == 1000.0


def suspected(stage: Stage, count: int) -> None:
    """Put so many messages into the lane, one second after the other."""
    stage.fill(count)
    hand = stage.hand()
    for number, delivery in enumerate(hand.take(count)):
        hand.suspect(delivery, now=1000.0 + number)
    hand.close()
    stage.await_depth(count, stage.plan.suspects)


@case()
def a_suspect_may_be_a_dead_letter(stage: Stage) -> None:
    stage.fill(1)
    hand = stage.hand()
    hand.suspect(hand.take_one())
    lane = stage.hand(lane=Lane.SUSPECTS, prefetch=1)
    suspect = lane.take_one()
    lane.bury(suspect, reason="it killed its process")
    (letter,) = stage.letters()
    assert letter.headers[own_headers.REASON] == "it killed its process"
    assert stage.app.dead_letters(stage.plan).take(lambda _: True, replay=True) == 1
    again = hand.get()
    assert (again.raw, again.attempt, again.deaths) == (b"0", 1, 0)


# -- dead letters ----------------------------------------------------------------------


def bury(stage: Stage, count: int, **options: t.Any) -> list[bytes]:
    """Publish that many, and make each a dead letter, in their order."""
    sent = stage.fill(count, headers={"x-tenant": "acme"}, key="one")
    hand = stage.hand()
    deliveries = sorted(hand.take(count), key=lambda each: int(each.message.raw))
    hand.bury(*deliveries, **options)
    hand.close()
    stage.await_letters(count)
    return sent


@case()
def a_dead_letter_says_why_and_what_it_was(stage: Stage) -> None:
    bury(stage, 1)
    (letter,) = stage.letters()
    assert letter.queue == stage.plan.name
    assert letter.headers[own_headers.REASON] == "bad"
    assert letter.headers[own_headers.ERROR] == "builtins.ValueError: no such card"
    assert "stage.py" in letter.headers[own_headers.TRACEBACK]
    assert letter.headers[own_headers.CONSUMER] == "bill"
    assert letter.headers[own_headers.ATTEMPTS] == 1
    assert letter.headers[own_headers.DIED_AT] == pytest.approx(time.time(), abs=30)
    assert "x-tenant" not in letter.headers
    assert letter.message.headers["x-tenant"] == "acme"
    assert letter.message.raw == b"0"
    assert letter.message.id
    assert (letter.message.exchange, letter.message.routing_key) == (
        EXCHANGE,
        stage.key("order"),
    )
    assert stage.depth() == 0


@case()
def dead_letters_are_listed_the_oldest_first_and_looking_changes_nothing(
    stage: Stage,
) -> None:
    sent = bury(stage, 30)
    first = stage.letters()
    assert [letter.message.raw for letter in first] == sent
    assert len({letter.ref for letter in first}) == 30
    for _ in range(2):
        stage.await_letters(30)
        assert {letter.ref for letter in stage.letters()} == {
            letter.ref for letter in first
        }
    stage.await_letters(30)
    for letter in stage.app.dead_letters(stage.plan):
        assert letter.message.raw == sent[0]
        break
    stage.await_letters(30)


@case()
def dead_letters_of_a_queue_without_any_are_none(stage: Stage) -> None:
    stage.app.declare()
    letters = stage.app.dead_letters(stage.plan)
    assert (letters.count(), list(letters)) == (0, [])
    assert letters.take(lambda _: True, replay=True) == 0


@case()
def a_replay_goes_to_the_queue_that_failed_as_if_new(stage: Stage) -> None:
    audit = stage.planned("audit", "#")
    app = stage.opened(audit)
    app.declare()
    sent = bury(stage, 12)
    looked: list[int] = []
    letters = stage.app.dead_letters(stage.plan)
    taken = letters.take(
        lambda letter: letter.message.raw in sent[3:6],
        replay=True,
        progress=lambda: looked.append(1),
    )
    assert (taken, len(looked)) == (3, 12)
    stage.await_letters(9)
    hand = stage.hand()
    deliveries = hand.take(3)
    assert sorted(bodies(deliveries)) == sorted(sent[3:6])
    message = deliveries[0].message
    assert (message.attempt, message.deaths, message.redelivered) == (1, 0, False)
    assert message.headers["x-tenant"] == "acme"
    assert not {own_headers.REASON, own_headers.DIED_AT} & set(message.headers)
    assert (message.exchange, message.routing_key) == (EXCHANGE, stage.key("order"))
    hand.nothing_comes(0.1)
    # The other queue has what was published, and not what was replayed.
    others = stage.hand(audit)
    others.ack(others.take(12))
    others.nothing_comes(0.1)


@case()
def one_dead_letter_is_taken_by_its_ref(stage: Stage) -> None:
    sent = bury(stage, 5)
    letters = stage.app.dead_letters(stage.plan)
    wanted = stage.letters()[2]
    assert letters.take(lambda each: each.ref == wanted.ref, replay=False) == 1
    stage.await_letters(4)
    left = [letter.message.raw for letter in stage.letters()]
    assert sorted(left) == sorted(set(sent) - {wanted.message.raw})


@case()
def a_purge_removes_the_wanted_and_sends_nothing(stage: Stage) -> None:
    bury(stage, 20)
    letters = stage.app.dead_letters(stage.plan)
    even = letters.take(lambda each: int(each.message.raw) % 2 == 0, replay=False)
    assert even == 10
    stage.await_letters(10)
    assert all(int(each.message.raw) % 2 for each in letters)
    assert stage.depth() == 0


@case()
def what_is_replayed_may_die_again(stage: Stage) -> None:
    bury(stage, 1, reason="first")
    (first,) = stage.letters()
    letters = stage.app.dead_letters(stage.plan)
    assert letters.take(lambda _: True, replay=True) == 1
    hand = stage.hand()
    hand.bury(hand.take_one(), reason="second")
    stage.await_letters(1)
    (second,) = stage.letters()
    assert second.headers[own_headers.REASON] == "second"
    assert second.message.id == first.message.id
    assert letters.take(lambda _: True, replay=True) == 1
    assert hand.get().raw == b"0"
    hand.nothing_comes(0.1)
    assert stage.letters() == []


@case()
def dead_letters_are_forgotten_in_time(stage: Stage) -> None:
    bury(stage, 1, expires=600.0)
    hand = stage.hand()
    stage.publish(stage.message(b"soon gone"))
    hand.bury(hand.take_one(), expires=1)
    # RabbitMQ lets go of what is at the head only: the first one is taken away.
    letters = stage.opened(stage.plan, dead_letter_ttl=1).dead_letters(stage.plan)
    letters.take(lambda each: each.message.raw == b"0", replay=False)
    wait_for(lambda: letters.count() == 0, SOON)
    assert list(letters) == []


@case("exclusive_replays")
def two_who_replay_at_once_send_each_one_once(stage: Stage) -> None:
    bury(stage, 10)
    greenlets = [
        gevent.spawn(
            stage.app.dead_letters(stage.plan).take, lambda _: True, replay=True
        )
        for _ in range(2)
    ]
    gevent.joinall(greenlets, timeout=SOON, raise_error=True)
    assert sum(greenlet.value for greenlet in greenlets) == 10
    hand = stage.hand()
    assert sorted(bodies(hand.take(10)), key=int) == [b"%d" % n for n in range(10)]
    hand.nothing_comes(0.1)


@two_who_replay_at_once_send_each_one_once.otherwise("exclusive_replays")
def two_who_replay_at_once_lose_none(stage: Stage) -> None:
    bury(stage, 10)
    letters = stage.app.dead_letters(stage.plan)
    greenlets = [
        gevent.spawn(letters.take, lambda _: True, replay=True) for _ in range(2)
    ]
    gevent.joinall(greenlets, timeout=SOON, raise_error=True)
    came = bodies(stage.hand().take(sum(greenlet.value for greenlet in greenlets)))
    assert {int(body) for body in came} == set(range(10))
    stage.await_letters(0)


# -- topology --------------------------------------------------------------------------


@case()
def declaring_again_changes_nothing(stage: Stage) -> None:
    stage.app.declare()
    stage.fill(3)
    stage.app.declare()
    stage.opened(stage.plan).declare()
    assert stage.depth() == 3
    assert stage.app.stale_bindings() == []


@case()
def passive_declares_nothing_and_says_what_is_missing(stage: Stage) -> None:
    passive = stage.opened(stage.plan, declare="passive")
    with pytest.raises(TopologyMismatch):
        passive.declare()
    assert isinstance(stage.refused(stage.message(b"1"), by=passive), TopologyMismatch)
    stage.app.declare()
    assert stage.depth() == 0
    passive.declare()
    stage.publish(stage.message(b"1"), by=passive)
    assert stage.hand(by=passive).get().raw == b"1"


@case()
def never_leaves_everything_alone(stage: Stage) -> None:
    never = stage.opened(stage.plan, declare="never")
    never.declare()
    assert isinstance(stage.refused(stage.message(b"1"), by=never), Unroutable)
    stage.app.declare()
    stage.publish(stage.message(b"1"), by=never)
    assert stage.hand(by=never).get().raw == b"1"


@case()
def the_depth_of_a_queue_that_is_not_there_is_none(stage: Stage) -> None:
    name = stage.key("nobody")
    assert stage.depth(name) == 0
    # Asking makes none.
    if stage.record.knows_missing_queues:
        message = stage.message(b"1", name, exchange="")
        assert isinstance(stage.refused(message), Unroutable)


@case("bindings")
def a_binding_that_the_code_has_no_more_is_found_and_removed(stage: Stage) -> None:
    queue = stage.planned("billing", "order.old", "order.kept")
    stage.opened(queue).declare()
    later = stage.opened(stage.planned("billing", "order.kept", "order.new"))
    later.declare()
    stale = [Binding(queue.name, EXCHANGE, stage.key("order.old"))]
    assert later.stale_bindings() == stale
    stage.publish(stage.message(b"1", "order.old"), by=later)
    later.unbind(stale)
    later.unbind(stale)
    assert later.stale_bindings() == []
    old = stage.message(b"1", "order.old")
    assert isinstance(stage.refused(old, by=later), Unroutable)
    stage.publish(stage.message(b"2", "order.kept"), by=later)
    stage.publish(stage.message(b"3", "order.new"), by=later)


@a_binding_that_the_code_has_no_more_is_found_and_removed.otherwise("bindings")
def no_binding_outlives_the_code(stage: Stage) -> None:
    queue = stage.planned("billing", "order.old", "order.kept")
    stage.opened(queue).declare()
    later = stage.opened(stage.planned("billing", "order.kept", "order.new"))
    later.declare()
    assert later.stale_bindings() == []
    stage.publish(stage.message(b"1", "order.new"), by=later)
    hand = stage.hand(later.topology.queues[0], by=later)
    stage.publish(stage.message(b"2", "order.old", mandatory=False), by=later)
    assert hand.get().raw == b"1"
    hand.nothing_comes()


@case("bindings")
def a_binding_to_the_exchange_without_the_prefix_is_stale(stage: Stage) -> None:
    """Earlier versions bound there; what another stage has there stays."""
    stage.app.declare()
    before = stage.planned("staging.billing", "order")
    stage.opened(before).declare()
    staging = stage.opened(
        dataclasses.replace(before, bindings=()), queue_prefix=stage.key("staging.")
    )
    stale = [Binding(before.name, EXCHANGE, stage.key("order"))]
    assert staging.stale_bindings() == stale
    staging.unbind(stale)
    assert staging.stale_bindings() == []
    stage.publish(stage.message(b"1"))
    stage.await_depth(1)
    assert staging.depth(before.name) == 0


@a_binding_to_the_exchange_without_the_prefix_is_stale.otherwise("bindings")
def no_binding_outlives_a_change_of_the_prefix(stage: Stage) -> None:
    staging = stage.opened(stage.plan, queue_prefix="staging.")
    assert staging.stale_bindings() == []


@case()
def bindings_of_other_apps_are_none_of_ours(stage: Stage) -> None:
    stage.app.declare()
    other = stage.opened(stage.planned("audit", "#"))
    other.declare()
    assert other.stale_bindings() == []
    assert stage.app.stale_bindings() == []


@case("queue_arguments")
def an_argument_of_a_given_queue_is_honoured(stage: Stage) -> None:
    plan = stage.planned("inbox", given=_passing(stage))
    app = stage.opened(plan)
    app.declare()
    stage.publish(stage.message(b"1", plan.name, exchange=""), by=app)
    wait_for(lambda: stage.depth(plan.name) == 0, message="it expired in its queue")


@an_argument_of_a_given_queue_is_honoured.otherwise("queue_arguments")
def an_argument_of_a_given_queue_is_refused(stage: Stage) -> None:
    (problem,) = find_unsupported_traits(_passing(stage), stage.record)
    assert "'x-message-ttl'" in problem
    assert "Leave it out" in problem


def _passing(stage: Stage) -> Queue:
    exchange = Exchange(EXCHANGE, "topic")
    key = stage.key("mail")
    return Queue(stage.key("inbox"), exchange, routing_key=key, message_ttl=0.2)


@case()
def a_queue_of_somebody_elses_is_used_as_given(stage: Stage) -> None:
    """And its lanes are ours."""
    key = stage.key("mail")
    given = Queue(stage.key("inbox"), Exchange(EXCHANGE, "topic"), routing_key=key)
    plan = stage.planned("inbox", given=given)
    theirs = stage.opened(stage.planned("theirs", "mail"))
    theirs.declare()
    app = stage.opened(plan)
    app.declare()
    app.declare()
    stage.publish(stage.message(b"1", "mail"), by=app)
    hand = stage.hand(plan)
    delivery = hand.take_one()
    assert delivery.message.routing_key == key
    hand.retry(delivery)
    again = hand.take_one()
    assert again.message.attempt == 2
    hand.bury(again)
    (letter,) = stage.letters(plan)
    assert letter.message.raw == b"1"


# -- outages ---------------------------------------------------------------------------


@case("shared")
def no_broker_at_all_is_told_in_time(stage: Stage) -> None:
    """The error keeps the password to itself. Nothing was opened before."""
    broker = stage.opened(stage.plan, broker_url=stage.place.nowhere)
    began = time.monotonic()
    error = broker.publish([stage.message(b"1")], 0.5)[0]
    assert isinstance(error, BrokerUnavailable | PublishTimeout)
    assert time.monotonic() - began < 3
    assert "secret" not in f"{error}{error!r}"


@case("shared", "unmarked_losses")
def what_a_lost_link_held_comes_again_unmarked(stage: Stage) -> None:
    assert not any(marks_after_a_loss(stage))


@what_a_lost_link_held_comes_again_unmarked.otherwise("unmarked_losses")
def what_a_lost_link_held_comes_again_marked(stage: Stage) -> None:
    # On Kafka a connection mends underneath, or everything is as after a kill of the
    # broker, which has a case of its own.
    if stage.place.loses_links:
        assert all(marks_after_a_loss(stage))


def marks_after_a_loss(stage: Stage) -> list[bool]:
    """Whether each message that was held is marked when it comes again."""
    stage.fill(5)
    hand = stage.hand()
    held = hand.take(5)
    stage.place.cut()
    hand.lost()
    assert all(delivery.stale for delivery in held)
    hand.close()
    again = stage.hand()
    deliveries = again.take(5)
    assert sorted(bodies(deliveries)) == [b"%d" % n for n in range(5)]
    again.ack(deliveries)
    # The publisher connects again by itself.
    stage.publish(stage.message(b"after"))
    assert again.get().raw == b"after"
    return [delivery.message.redelivered for delivery in deliveries]


@case("survives_worker_death")
def what_a_killed_process_held_comes_again_marked(stage: Stage) -> None:
    """And what it acknowledged, or never had, does not, or not marked."""
    stage.fill(12)
    said = stage.die_holding(8, acked=3)
    hand = stage.hand()
    came = {d.message.raw.decode(): d.message.redelivered for d in hand.take(9)}
    hand.nothing_comes(0.1)
    held = {each["body"] for each in said[3:]}
    assert held <= set(came)
    assert all(came[body] for body in held)
    assert not any(marked for body, marked in came.items() if body not in held)
    assert not {each["body"] for each in said[:3]} & set(came)
    assert not any(each["redelivered"] for each in said)


@case("survives_worker_death")
def what_kills_its_process_in_the_lane_is_marked_there(stage: Stage) -> None:
    stage.fill(1)
    hand = stage.hand()
    hand.suspect(hand.take_one(), deaths=1)
    hand.close()
    stage.die_holding(1, Lane.SUSPECTS)
    lane = stage.hand(lane=Lane.SUSPECTS, prefetch=1)
    suspect = lane.take_one()
    assert suspect.message.redelivered
    assert suspect.message.deaths == 1
    lane.bury(suspect)
    assert len(stage.letters()) == 1


@case("durable", breaks=True)
def everything_outlives_a_kill_of_the_broker(stage: Stage) -> None:
    """What waits, is held back, is held by a link, or is dead; and all go on after."""
    stage.app.declare()
    stage.app.declare_delays()
    stage.place.settle()
    stage.publish(stage.message(b"dead"))
    hand = stage.hand(prefetch=1)
    hand.bury(hand.take_one())
    stage.publish(stage.message(b"delayed"))
    hand.retry(hand.take_one(), delay=1)
    stage.publish(stage.message(b"held"))
    hand.take_one()
    stage.publish(stage.message(b"waiting"))
    stage.place.server.kill()
    stage.place.server.start()
    stage.publish(stage.message(b"after"))
    hand.close()
    again = stage.hand()
    came = bodies(again.take(4, timeout=60))
    assert sorted(came) == [b"after", b"delayed", b"held", b"waiting"]
    stage.await_letters(1)
    assert [letter.message.raw for letter in stage.letters()] == [b"dead"]


@case("durable", breaks=True)
def a_queue_is_bound_once_a_broker_is_there_that_was_away_at_the_start(
    stage: Stage,
) -> None:
    """What others publish finds it, though a start could not declare anything."""
    plan = stage.planned("late", "late")
    late = stage.opened(plan)
    stage.place.server.kill()
    with pytest.raises(BrokerUnavailable):
        late.declare()
    stage.place.server.start()

    def connected() -> t.Any:
        with contextlib.suppress(BrokerUnavailable):
            return stage.hand(plan, by=late)

    hand = wait_for(connected, 60)
    message = stage.message(b"1", "late")
    wait_for(lambda: stage.app.publish([message], SOON) == [None], 60)
    assert hand.get().raw == b"1"


@case("shared", breaks=True)
def a_broker_that_hangs_is_told_in_time(stage: Stage) -> None:
    app = stage.opened(stage.plan, publish_timeout=0.5)
    stage.app.declare()
    wait_for(lambda: app.publish([stage.message(b"1")], SOON) == [None], SOON)
    with stage.place.server.frozen():
        began = time.monotonic()
        (error,) = app.publish([stage.message(b"2")], 0.5)
        assert isinstance(error, PublishTimeout | BrokerUnavailable)
        assert time.monotonic() - began < 5
    stage.publish(stage.message(b"after"))


# -- apps ------------------------------------------------------------------------------


@case()
def what_costs_too_much_to_decode_is_a_dead_letter_at_once(stage: Stage) -> None:
    qconsume, got = QConsume(), list[t.Any]()
    key, queue = stage.key("order"), stage.key("billing")
    qconsume.add_consumer("billing", got.append, name="bill", routing_key=key)
    worker = stage.worker(qconsume, max_items=50_000)
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
def an_app_handles_retries_and_buries(stage: Stage) -> None:
    """All the way, with a prefix for the queues."""
    qconsume = QConsume()
    seen: list[tuple[str, str, int]] = []

    def bill(body: str) -> None:
        seen.append((current_message.queue, body, current_message.attempt))
        if body == "bad":
            raise ValueError("no such card")

    key, queue = stage.key("order"), stage.key("billing")
    retry = RetryPolicy(max_attempts=2, min_delay=0.05, jitter=0)
    qconsume.add_consumer("billing", bill, name="bill", routing_key=key, retry=retry)
    worker = stage.worker(qconsume)
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
def a_worker_that_stops_hands_on_what_it_has_not_begun(stage: Stage) -> None:
    """Nothing is lost, nothing is handled twice, and no attempt is charged."""
    seen: list[tuple[int, int]] = []

    def bill(number: int) -> None:
        gevent.sleep(0.01)
        seen.append((number, current_message.attempt))

    def started() -> Worker:
        qconsume = QConsume()
        key = stage.key("order")
        qconsume.add_consumer(
            "billing", bill, name="bill", routing_key=key, concurrency=2
        )
        return stage.worker(qconsume)

    first = started()
    consumers = get_app_consumers(first.app)
    consumers.publish_many([(stage.key("order"), number) for number in range(60)])
    wait_for(lambda: len(seen) >= 10, SOON)
    assert first.stop()
    assert len(seen) < 60
    second = started()
    wait_for(lambda: len(seen) >= 60, SOON)
    assert second.stop()
    assert sorted(seen) == [(number, 1) for number in range(60)]


@case()
def stages_with_prefixes_of_their_own_share_nothing(stage: Stage) -> None:
    """Work queues, events, patterns, retries, delays and dead letters."""
    production, staging = _Shop(stage, "production."), _Shop(stage, "staging.")
    production.publish("order.created", 1)
    staging.publish("order.created", 2)
    production.publish("billing", "bad")
    if stage.record.delayed_publish:
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
def nobody_in_the_own_stage_is_nobody(stage: Stage) -> None:
    _Shop(stage, "staging.")
    production = stage.opened(queue_prefix=stage.key("production."))
    key = "order.created"
    message = compose(production.settings.exchange, key, 1)
    error = stage.refused(message, by=production)
    assert isinstance(error, Unroutable)
    assert stage.key("production.") in str(error)


class _Shop:
    """A stage of an app: what it handled, and what it could not."""

    def __init__(self, stage: Stage, prefix: str) -> None:
        self.events: list[tuple[str, int]] = []
        self.attempts = 0
        qconsume = QConsume()
        retry = RetryPolicy(max_attempts=2, min_delay=0.05, jitter=0)
        qconsume.add_consumer("billing", self._fail, name="bill", retry=retry)
        # The one in full is what there is a topic for on Kafka.
        keys = ["order.created", "order.*"]
        qconsume.add_consumer("audit", self._see, name="audit", routing_key=keys)
        worker = stage.worker(qconsume, queue_prefix=stage.key(prefix))
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
def an_ordering_is_kept_or_refused(stage: Stage) -> None:
    """No consumer believes in an order that there is not."""
    for ordering in ("none", "key", "partition"):
        qconsume = QConsume()
        qconsume.add_consumer("billing", print, name="bill", ordering=ordering)
        if ordering in stage.record.orderings:
            assert stage.worker(qconsume).stop()
        else:
            with pytest.raises(UnsupportedByBroker, match=ordering):
                stage.worker(qconsume)
