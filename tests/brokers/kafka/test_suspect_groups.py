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
from .tools import QUICKLY
from .tools import LinkedBroker
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read

TOPIC = "_qconsume.billing.suspects"


class FakeLink:
    """A link that counts how often it is woken."""

    def __init__(self) -> None:
        self.closed = False
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


class ClockedGroups:
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
def clocked_groups() -> ClockedGroups:
    return ClockedGroups()


def test_a_lane_in_which_something_lies_is_woken_at_once(
    clocked_groups: ClockedGroups,
) -> None:
    clocked_groups.filled = {(TOPIC, 0)}
    full, empty = clocked_groups.add(), clocked_groups.add("mail")
    assert full.woken == 1 and clocked_groups.groups.is_in_use("billing")
    assert empty.woken == 0 and not clocked_groups.groups.is_in_use("mail")
    assert clocked_groups.asked == [{(TOPIC, 0)}, {("_qconsume.mail.suspects", 0)}]


def test_one_question_is_for_all_lanes_and_for_all_partitions(
    clocked_groups: ClockedGroups,
) -> None:
    clocked_groups.sizes = {TOPIC: 2}
    clocked_groups.add()
    clocked_groups.add("mail")
    clocked_groups.asked.clear()
    clocked_groups.beat(60.0)
    assert clocked_groups.asked == [
        {(TOPIC, 0), (TOPIC, 1), ("_qconsume.mail.suspects", 0)}
    ]


def test_what_comes_later_is_noticed_and_looked_for_no_more(
    clocked_groups: ClockedGroups,
) -> None:
    link = clocked_groups.add()
    clocked_groups.filled = {(TOPIC, 0)}
    clocked_groups.beat(9.0)
    assert link.woken == 1
    clocked_groups.beat(60.0)
    assert len(clocked_groups.asked) == 2


def test_all_links_beat_and_one_of_them_looks(clocked_groups: ClockedGroups) -> None:
    clocked_groups.add()
    for _ in range(50):
        clocked_groups.beat(0.01)
    assert len(clocked_groups.asked) == 1


def test_it_is_looked_the_less_the_longer_that_takes(
    clocked_groups: ClockedGroups,
) -> None:
    clocked_groups.took = 2.0
    clocked_groups.add()
    clocked_groups.beat(39.0)
    assert len(clocked_groups.asked) == 1
    clocked_groups.beat(2.0)
    assert len(clocked_groups.asked) == 2


def test_a_lane_that_comes_during_a_look_is_looked_at_after_it(
    clocked_groups: ClockedGroups,
) -> None:
    link = FakeLink()

    def come() -> None:
        clocked_groups.meanwhile = lambda: None
        clocked_groups.groups.add("mail", link)

    clocked_groups.meanwhile = come
    clocked_groups.filled = {("_qconsume.mail.suspects", 0)}
    clocked_groups.add()
    assert link.woken == 1


def test_a_broker_that_does_not_answer_is_asked_again(
    clocked_groups: ClockedGroups,
) -> None:
    clocked_groups.error = BrokerUnavailable("hangs")
    clocked_groups.filled = {(TOPIC, 0)}
    link = clocked_groups.add()
    clocked_groups.beat(1.0)
    assert (link.woken, len(clocked_groups.asked)) == (0, 1)
    clocked_groups.error = None
    clocked_groups.beat(9.0)
    assert link.woken == 1


def test_a_process_that_moves_a_suspect_wakes_its_own_links(
    clocked_groups: ClockedGroups,
) -> None:
    links = clocked_groups.add(), clocked_groups.add(), clocked_groups.add("mail")
    clocked_groups.groups.set_in_use("billing")
    assert [link.woken for link in links] == [1, 1, 0]
    asked = len(clocked_groups.asked)
    # It joins without asking: it is known, and stays so.
    clocked_groups.add()
    assert (
        clocked_groups.groups.is_in_use("billing")
        and len(clocked_groups.asked) == asked
    )
    clocked_groups.beat(60.0)
    assert clocked_groups.asked[asked:] == [{("_qconsume.mail.suspects", 0)}]


def test_a_lane_that_is_closed_is_not_asked_for(clocked_groups: ClockedGroups) -> None:
    clocked_groups.add().closed = True
    clocked_groups.beat(60.0)
    assert clocked_groups.asked[1:] == [set()]
    clocked_groups.beat(60.0)
    assert len(clocked_groups.asked) == 2


# -- on a real Kafka ------------------------------------------------------------------


def test_a_lane_joins_its_group_only_once_it_has_a_suspect(
    kafka: Kafka, kafka_prefix: str
) -> None:
    with linked_broker(kafka.url, plan(f"{kafka_prefix}billing")) as linked:
        lane = lane_of(linked)
        wait_until_looked(linked)
        assert lane.read(1, wait=0.05) == []
        assert not joined(lane)
        suspect(linked, b"here")
        assert raw(read(lane, 1)) == [b"here"]
        assert joined(lane)


def test_a_suspect_of_another_process_is_found_at_the_next_look(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = plan(f"{kafka_prefix}billing")
    with (
        linked_broker(kafka.url, queue) as linked,
        linked_broker(kafka.url, queue) as other,
    ):
        lane = lane_of(linked)
        wait_until_looked(linked)
        suspect(other, b"there")
        # As if the last look were long ago.
        groups_of(linked)._last_suspects_look = float("-inf")
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
    with linked_broker(kafka.url, queue, transport_options=late) as linked:
        linked.broker.declare()
        suspect(linked, b"before")
    with linked_broker(kafka.url, queue, transport_options=late) as linked:
        assert raw(read(lane_of(linked), 1)) == [b"before"]


def test_where_nothing_is_declared_a_suspect_is_found_once_topics_are_known(
    kafka: Kafka, kafka_prefix: str
) -> None:
    queue = plan(f"{kafka_prefix}billing")
    with linked_broker(kafka.url, queue) as linked:
        suspect(linked, b"before")
    with linked_broker(kafka.url, queue, declare="never") as linked:
        lane = lane_of(linked)
        lane.keep_alive()  # This looks for the topics.
        assert raw(read(lane, 1)) == [b"before"]


def test_a_lane_that_has_not_joined_can_be_paused_and_closed(
    kafka: Kafka, kafka_prefix: str
) -> None:
    with linked_broker(kafka.url, plan(f"{kafka_prefix}billing")) as linked:
        lane = lane_of(linked)
        reading = gevent.spawn(lane.read, 1, 60.0)
        gevent.sleep(0)
        lane.pause()
        lane.keep_alive()
        assert reading.get(timeout=10) == []
        suspect(linked, b"late")
        assert lane.read(1, wait=0.05) == []
        assert not joined(lane)
        again = gevent.spawn(lane.read, 1, 60.0)
        gevent.sleep(0)
        lane.close()
        assert again.get(timeout=10) == []


def lane_of(linked: LinkedBroker) -> KafkaLink:
    return t.cast(KafkaLink, linked.link(Lane.SUSPECTS))


def groups_of(linked: LinkedBroker) -> SuspectGroups:
    return t.cast(KafkaBroker, linked.broker)._suspect_groups


def wait_until_looked(linked: LinkedBroker) -> None:
    groups = groups_of(linked)
    wait_for(lambda: not is_due(groups) and groups._last_suspects_look > 0, 20)


def joined(lane: KafkaLink) -> bool:
    """Return whether the link has begun to join its group."""
    return lane._consumer.is_started


def suspect(linked: LinkedBroker, body: bytes) -> None:
    """Publish a message, and have it become a suspect."""
    linked.publish(outgoing(linked.plan.name, body))
    link = linked.link()
    (delivery,) = read(link, 1)
    forward = Forward(delivery, Lane.SUSPECTS, delivery.message.headers)
    assert link.forward([forward]) == [None]
    link.close()


def raw(deliveries: list[Delivery]) -> list[bytes]:
    return [each.message.raw for each in deliveries]
