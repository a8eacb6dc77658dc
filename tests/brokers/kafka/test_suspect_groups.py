"""When suspects' groups are joined, and how rarely Kafka is asked for suspects."""

from __future__ import annotations

import typing as t
from collections.abc import Collection

import gevent
import pytest

from flask_qconsume import BrokerUnavailable
from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.kafka.broker import Kafka as KafkaBroker
from flask_qconsume.brokers.kafka.client.partition import PartitionId
from flask_qconsume.brokers.kafka.link import KafkaLink
from flask_qconsume.brokers.kafka.suspect_groups import SuspectGroups

from ...servers.kafka import Kafka
from ...waiting import wait_for
from .shop import QUICKLY
from .shop import Shop
from .shop import outgoing
from .shop import plan
from .shop import read
from .shop import shop

TOPIC = "_qconsume.billing.suspects"


class FakeLink:
    """A link that counts how often it is woken."""

    def __init__(self) -> None:
        self.closed = False
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


class Bench:
    """Suspect groups on a virtual clock, and the questions that they ask."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.took = 0.01
        self.asked: list[set[PartitionId]] = []
        self.filled: set[PartitionId] = set()
        self.error: Exception | None = None
        self.meanwhile: t.Callable[[], object] = lambda: None
        self.sizes: dict[str, int] = {}
        self.groups = SuspectGroups(
            lambda topic: self.sizes.get(topic, 1), self._ask, self.time
        )

    def time(self) -> float:
        return self.now

    def _ask(self, places: Collection[PartitionId], timeout: float) -> set[PartitionId]:
        self.asked.append(set(places))
        self.now += self.took
        self.meanwhile()
        if self.error is not None:
            raise self.error
        return self.filled & set(places)

    def add(self, queue: str = "billing") -> FakeLink:
        link = FakeLink()
        self.groups.add(queue, link)
        self.settle()
        return link

    def beat(self, after: float = 0.0) -> None:
        self.now += after
        self.groups.look_if_due()
        self.settle()

    def settle(self) -> None:
        """Wait for the end of the look in the background."""
        wait_for(lambda: not is_due(self.groups), 10)


def is_due(groups: SuspectGroups) -> bool:
    """Return whether a look is running, or is to come."""
    due = groups._must_look or not groups._is_recent()
    return groups._looking.locked() or bool(groups._waiting and due)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_lane_in_which_something_lies_is_woken_at_once(bench: Bench) -> None:
    bench.filled = {(TOPIC, 0)}
    full, empty = bench.add(), bench.add("mail")
    assert full.woken == 1 and bench.groups.is_in_use("billing")
    assert empty.woken == 0 and not bench.groups.is_in_use("mail")
    assert bench.asked == [{(TOPIC, 0)}, {("_qconsume.mail.suspects", 0)}]


def test_one_question_is_for_all_lanes_and_for_all_partitions(bench: Bench) -> None:
    bench.sizes = {TOPIC: 2}
    bench.add()
    bench.add("mail")
    bench.asked.clear()
    bench.beat(60.0)
    assert bench.asked == [{(TOPIC, 0), (TOPIC, 1), ("_qconsume.mail.suspects", 0)}]


def test_what_comes_later_is_noticed_and_looked_for_no_more(bench: Bench) -> None:
    link = bench.add()
    bench.filled = {(TOPIC, 0)}
    bench.beat(9.0)
    assert link.woken == 1
    bench.beat(60.0)
    assert len(bench.asked) == 2


def test_all_links_beat_and_one_of_them_looks(bench: Bench) -> None:
    bench.add()
    for _ in range(50):
        bench.beat(0.01)
    assert len(bench.asked) == 1


def test_it_is_looked_the_less_the_longer_that_takes(bench: Bench) -> None:
    bench.took = 2.0
    bench.add()
    bench.beat(39.0)
    assert len(bench.asked) == 1
    bench.beat(2.0)
    assert len(bench.asked) == 2


def test_a_lane_that_comes_during_a_look_is_looked_at_after_it(bench: Bench) -> None:
    link = FakeLink()

    def come() -> None:
        bench.meanwhile = lambda: None
        bench.groups.add("mail", link)

    bench.meanwhile = come
    bench.filled = {("_qconsume.mail.suspects", 0)}
    bench.add()
    assert link.woken == 1


def test_a_broker_that_does_not_answer_is_asked_again(bench: Bench) -> None:
    bench.error = BrokerUnavailable("hangs")
    bench.filled = {(TOPIC, 0)}
    link = bench.add()
    bench.beat(1.0)
    assert (link.woken, len(bench.asked)) == (0, 1)
    bench.error = None
    bench.beat(9.0)
    assert link.woken == 1


def test_a_process_that_moves_a_suspect_wakes_its_own_links(bench: Bench) -> None:
    links = bench.add(), bench.add(), bench.add("mail")
    bench.groups.set_in_use("billing")
    assert [link.woken for link in links] == [1, 1, 0]
    asked = len(bench.asked)
    # It joins without asking: it is known, and stays so.
    bench.add()
    assert bench.groups.is_in_use("billing") and len(bench.asked) == asked
    bench.beat(60.0)
    assert bench.asked[asked:] == [{("_qconsume.mail.suspects", 0)}]


def test_a_lane_that_is_closed_is_not_asked_for(bench: Bench) -> None:
    bench.add().closed = True
    bench.beat(60.0)
    assert bench.asked[1:] == [set()]
    bench.beat(60.0)
    assert len(bench.asked) == 2


# -- on a real Kafka ------------------------------------------------------------------


def test_a_lane_joins_its_group_only_once_it_has_a_suspect(
    kafka: Kafka, kafka_prefix: str
) -> None:
    with shop(kafka.url, plan(f"{kafka_prefix}billing")) as it:
        lane = lane_of(it)
        wait_until_looked(it)
        assert lane.read(1, wait=0.05) == []
        assert not joined(lane)
        suspect(it, b"here")
        assert raw(read(lane, 1)) == [b"here"]
        assert joined(lane)


def test_a_suspect_of_another_process_is_found_at_the_next_look(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = plan(f"{kafka_prefix}billing")
    with shop(kafka.url, queue) as it, shop(kafka.url, queue) as other:
        lane = lane_of(it)
        wait_until_looked(it)
        suspect(other, b"there")
        # As if the last look were long ago.
        groups_of(it)._last_suspects_look = float("-inf")
        lane.keep_alive()
        assert raw(read(lane, 1)) == [b"there"]


def test_a_suspect_that_was_there_before_is_found_wherever_groups_begin(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = plan(f"{kafka_prefix}billing")
    late = {
        "kafka_consumer_config": {
            **QUICKLY["kafka_consumer_config"],
            "auto.offset.reset": "latest",
        }
    }
    with shop(kafka.url, queue, transport_options=late) as it:
        it.broker.declare()
        suspect(it, b"before")
    with shop(kafka.url, queue, transport_options=late) as it:
        assert raw(read(lane_of(it), 1)) == [b"before"]


def test_where_nothing_is_declared_a_suspect_is_found_once_topics_are_known(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = plan(f"{kafka_prefix}billing")
    with shop(kafka.url, queue) as it:
        suspect(it, b"before")
    with shop(kafka.url, queue, declare="never") as it:
        lane = lane_of(it)
        lane.keep_alive()  # This looks for the topics.
        assert raw(read(lane, 1)) == [b"before"]


def test_a_lane_that_has_not_joined_can_be_paused_and_closed(
    kafka: Kafka, kafka_prefix: str
) -> None:
    with shop(kafka.url, plan(f"{kafka_prefix}billing")) as it:
        lane = lane_of(it)
        reading = gevent.spawn(lane.read, 1, 60.0)
        gevent.sleep(0)
        lane.pause()
        lane.keep_alive()
        assert reading.get(timeout=10) == []
        suspect(it, b"late")
        assert lane.read(1, wait=0.05) == []
        assert not joined(lane)
        again = gevent.spawn(lane.read, 1, 60.0)
        gevent.sleep(0)
        lane.close()
        assert again.get(timeout=10) == []


def lane_of(it: Shop) -> KafkaLink:
    return t.cast(KafkaLink, it.link(Lane.SUSPECTS))


def groups_of(it: Shop) -> SuspectGroups:
    return t.cast(KafkaBroker, it.broker)._suspect_groups


def wait_until_looked(it: Shop) -> None:
    groups = groups_of(it)
    wait_for(lambda: not is_due(groups) and groups._last_suspects_look > 0, 20)


def joined(lane: KafkaLink) -> bool:
    """Return whether the link has begun to join its group."""
    return lane._consumer.is_started


def suspect(it: Shop, body: bytes) -> None:
    """Publish a message, and have it become a suspect."""
    it.publish(outgoing(it.plan.name, body))
    link = it.link()
    (delivery,) = read(link, 1)
    forward = Forward(delivery, Lane.SUSPECTS, delivery.message.headers)
    assert link.forward([forward]) == [None]
    link.close()


def raw(deliveries: list[Delivery]) -> list[bytes]:
    return [each.message.raw for each in deliveries]
