"""A Kafka consumer: what it hands out, commits, gives up and survives."""

from __future__ import annotations

import socket
import time
import typing as t
from collections import Counter

import gevent
import pytest
from confluent_kafka import TopicPartition

from flask_qconsume import BrokerError
from flask_qconsume import BrokerRefused
from flask_qconsume import BrokerUnavailable
from flask_qconsume.brokers.kafka.client.consumer import KafkaConsumer
from flask_qconsume.brokers.kafka.client.partition import ReadyRecord
from flask_qconsume.brokers.kafka.client.terms import ConsumerTerms

from ....harness.ticks import Ticks
from ....servers.kafka import Kafka
from ....servers.ports import free_port
from ....waiting import spend
from ....waiting import wait_for
from .tools import Group
from .tools import config
from .tools import consuming
from .tools import nothing_comes
from .tools import numbers
from .tools import produce
from .tools import take
from .tools import values

PARTITIONS = 4


@pytest.fixture
def topic(kafka: Kafka, kafka_prefix: str) -> str:
    name = f"{kafka_prefix}orders"
    kafka.create_topics({name: PARTITIONS})
    return name


@pytest.fixture
def group(kafka: Kafka, topic: str) -> Group:
    """The group with the topic's name, with its offsets in partition 0."""
    return Group(kafka.address, topic, topic, 1)


def test_every_record_comes_once_and_all_is_committed(kafka: Kafka, topic: str) -> None:
    count = 2_000
    produce(kafka.address, topic, numbers(count), partition=lambda n: n % PARTITIONS)
    with consuming(kafka.address, topic, topic) as consumer:
        seen: list[bytes] = []
        while len(seen) < count:
            records = take(consumer)
            seen += values(records)
            consumer.settle(records)
        assert sorted(map(int, seen)) == list(range(count))
        assert nothing_comes(consumer)
        everywhere = Group(kafka.address, topic, topic, PARTITIONS)
        everywhere.await_offsets(*[count // PARTITIONS] * PARTITIONS)
        assert everywhere.metadata() == {}
    assert consumer.stale_count == 0


def test_a_member_at_rest_waits_longer_and_hears_of_what_comes(
    kafka: Kafka, topic: str, group: Group
) -> None:
    with consuming(kafka.address, topic, topic, room=3) as consumer:
        thread = consumer._consumer_thread
        wait_for(lambda: len(thread._assignment.partitions) == PARTITIONS, 20)
        wait_for(lambda: thread._poll_timeout([]) > 0.2, 20)
        produce(kafka.address, topic, numbers(10))
        for _ in range(10):
            consumer.settle(take(consumer))
        group.await_offsets(10)
        wait_for(lambda: thread._poll_timeout([]) > 0.2, 20)
        assert consumer.close(timeout=4)


def test_that_a_record_is_handed_out_was_committed_before(
    kafka: Kafka, topic: str, group: Group
) -> None:
    produce(kafka.address, topic, numbers(10))
    with consuming(kafka.address, topic, topic, room=3, ahead=False) as consumer:
        records = take(consumer, 3)
        assert group.metadata() == {"qconsume": 1, "upto": 3}
        assert nothing_comes(consumer)
        consumer.settle(records[1:2])
        take(consumer)
        assert group.metadata() == {"qconsume": 1, "upto": 4, "done": [1, 1]}
        assert group.offsets() == [0]


def test_it_can_be_waited_for_that_what_is_settled_is_committed(
    kafka: Kafka, topic: str, group: Group
) -> None:
    produce(kafka.address, topic, numbers(2))
    with consuming(kafka.address, topic, topic) as consumer:
        first, second = take(consumer, 2)
        consumer.settle([second])
        assert consumer.await_committed([second], 20)
        assert group.metadata()["done"] == [1, 1]
        assert not consumer.await_committed([first, second], 0.05)


def test_a_consumer_that_leaves_takes_its_marks_back(
    kafka: Kafka, topic: str, group: Group
) -> None:
    produce(kafka.address, topic, numbers(6))
    with consuming(kafka.address, topic, topic) as consumer:
        consumer.settle(take(consumer, 6)[2:4])
    assert group.metadata() == {"qconsume": 1, "upto": 0, "done": [2, 2]}
    with consuming(kafka.address, topic, topic) as consumer:
        again = take(consumer, 4)
        assert values(again) == [b"0", b"1", b"4", b"5"]
        assert not any(each.redelivered for each in again)
        consumer.settle(again)
    assert group.offsets() == [6]
    assert group.metadata() == {}


def test_what_was_in_flight_at_a_death_is_known(
    kafka: Kafka, topic: str, group: Group
) -> None:
    produce(kafka.address, topic, numbers(6))
    group.commit(0, '{"qconsume":1,"upto":4,"done":[1,2]}')
    with consuming(kafka.address, topic, topic) as consumer:
        found = {int(a.record.value()): a.redelivered for a in take(consumer, 4)}
        assert found == {0: True, 3: True, 4: False, 5: False}


def test_what_is_paused_hands_out_no_more_and_gives_back(
    kafka: Kafka, topic: str, group: Group
) -> None:
    produce(kafka.address, topic, numbers(30))
    with consuming(kafka.address, topic, topic) as consumer:
        begun, unbegun = take(consumer, 2), take(consumer, 3)
        consumer.pause()
        consumer.put_back(unbegun)
        assert consumer.take(10) == []
        group.await_metadata(upto=2)
        produce(kafka.address, topic, numbers(5))
        assert nothing_comes(consumer)
        consumer.settle(begun)
        group.await_offsets(2)
        group.await_metadata()


STRATEGIES = pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])


@STRATEGIES
def test_members_that_come_and_go_lose_and_repeat_nothing(
    kafka: Kafka, topic: str, strategy: str
) -> None:
    count, seen = 3_000, Counter[bytes]()
    options = {"partition_assignment_strategy": strategy}
    produce(kafka.address, topic, numbers(count), partition=lambda n: n % PARTITIONS)

    def handle(consumer: KafkaConsumer, records: list[ReadyRecord]) -> None:
        spend(0.002)  # A handler waits; meanwhile partitions may go.
        seen.update(v for v, a in zip(values(records), records, strict=True))
        consumer.settle(records)

    def some(consumer: KafkaConsumer, upto: int) -> None:
        """Handle records until this many were seen."""
        with gevent.Timeout(30):
            while len(seen) < upto:
                handle(consumer, consumer.take(7))
                consumer.wait(0)

    with consuming(kafka.address, topic, topic, **options) as first:
        some(first, count // 4)
        going_on = gevent.spawn(some, first, count // 2)
        with consuming(kafka.address, topic, topic, **options) as second:
            handle(second, take(second))
            some(second, count // 2)
            going_on.get()
            going_on = gevent.spawn(some, first, count * 3 // 4)
            some(second, count * 3 // 4)
            going_on.get()
        some(first, count)
        assert first.stale_count == second.stale_count == 0
        everywhere = Group(kafka.address, topic, topic, PARTITIONS)
        everywhere.await_offsets(*[count // PARTITIONS] * PARTITIONS)
    assert set(seen.values()) == {1}


def test_a_partition_is_given_up_only_when_its_records_are_handled(
    kafka: Kafka, topic: str
) -> None:
    everywhere = 40 * [b"first"]
    produce(kafka.address, topic, everywhere, partition=lambda n: n % PARTITIONS)
    with consuming(kafka.address, topic, topic, room=100) as first:
        held = take(first, 40)
        with consuming(kafka.address, topic, topic) as second:
            leaving = wait_for(
                lambda: {a.partition for a in held if a.partition.leaving}
            )
            assert not any(partition.gone for partition in leaving)
            to = [partition.number for partition in leaving]
            produce(kafka.address, topic, [b"second"], partition=to[0])
            assert nothing_comes(second)
            first.settle(held)
            (taken,) = take(second)
            assert taken.record.value() == b"second"
            assert not taken.redelivered
        assert first.stale_count == 0


def test_what_stays_goes_on_while_a_partition_that_leaves_is_waited_for(
    kafka: Kafka, topic: str
) -> None:
    """Only fetched records go on: the client fetches none until its callback ends."""
    count, room = 400, 40
    produce(kafka.address, topic, numbers(count), partition=lambda n: n % PARTITIONS)
    with consuming(kafka.address, topic, topic, room=room, ahead=False) as first:
        wait_for(lambda: first.buffered_count == count - room)
        one_each: dict[int, ReadyRecord] = {}
        while len(one_each) < PARTITIONS:
            (record,) = take(first)
            if one_each.setdefault(record.partition.number, record) is not record:
                first.settle([record])
        held = list(one_each.values())
        with consuming(kafka.address, topic, topic) as second:
            wait_for(lambda: sum(a.partition.leaving for a in held) == PARTITIONS // 2)
            leaving = [a for a in held if a.partition.leaving]
            staying = {a.partition for a in held} - {a.partition for a in leaving}
            for _ in range(100):
                (record,) = take(first)
                assert record.partition in staying
                first.settle([record])
            assert not any(a.partition.gone for a in leaving)
            first.settle(held)
            take(second)
        assert first.stale_count == 0


class Members:
    """Number of members of a group, as the broker tells it."""

    def __init__(self, kafka: Kafka, group: str) -> None:
        self._admin = kafka.admin()
        self._group = group

    def count(self) -> int:
        found = self._admin.describe_consumer_groups([self._group])
        return len(found[self._group].result(10).members)


def test_a_member_without_a_partition_leaves_its_group(
    kafka: Kafka, kafka_prefix: str
) -> None:
    """librdkafka alone leaves silently then, and the group waits for the session
    timeout.
    """
    topic = f"{kafka_prefix}single"
    members = Members(kafka, topic)
    kafka.create_topics({topic: 1})
    options = {"session_timeout_ms": 60_000}
    with consuming(kafka.address, topic, topic, **options) as first:
        wait_for(lambda: first._consumer_thread._assignment.partitions, 20)
        with consuming(kafka.address, topic, topic, **options):
            wait_for(lambda: members.count() == 2, 20)
            produce(kafka.address, topic, numbers(1))
            take(first)
        wait_for(lambda: members.count() == 1, 20)


def test_a_member_that_leaves_while_it_joins_holds_up_no_other(
    kafka: Kafka, topic: str
) -> None:
    members = Members(kafka, topic)
    options = {"session_timeout_ms": 60_000, "heartbeat_interval_ms": 1_000}
    with consuming(kafka.address, topic, topic, **options) as first:
        wait_for(lambda: first._consumer_thread._assignment.partitions, 20)
        with consuming(kafka.address, topic, topic, **options):
            wait_for(lambda: members.count() == 2, 20)
        with consuming(kafka.address, topic, topic, **options) as third:
            wait_for(lambda: third._consumer_thread._assignment.partitions, 20)


def test_what_is_not_handled_in_time_is_stale(kafka: Kafka, topic: str) -> None:
    produce(kafka.address, topic, numbers(40), partition=lambda n: n % PARTITIONS)
    with consuming(kafka.address, topic, topic, room=100, grace=0.1) as first:
        held = take(first, 40)
        with consuming(kafka.address, topic, topic) as second:
            gone = wait_for(lambda: [a for a in held if a.partition.gone])
            taken = take(second, len(gone))
            assert sorted(values(taken)) == sorted(values(gone))
            assert not any(a.redelivered for a in taken)
            first.settle(held)
            wait_for(lambda: first.stale_count == len(gone))
            second.settle(taken)


def test_much_is_not_fetched_ahead(kafka: Kafka, topic: str) -> None:
    large, count = b"x" * 900_000, 60
    produce(kafka.address, topic, [large] * count)
    with consuming(kafka.address, topic, topic, room=1) as consumer:
        consumer.settle(take(consumer))
        # It fills up, then pauses; some are on their way when it does.
        wait_for(lambda: consumer._consumer_thread._flow._all_paused)
        assert 10 < consumer.buffered_count < 50
        for _ in range(count - 1):
            consumer.settle(take(consumer))
        assert nothing_comes(consumer)


def test_what_was_paused_when_it_was_lost_is_read_when_it_comes_back(
    own_kafka: Kafka,
) -> None:
    """A broker hangs for longer than a session: partitions are lost, not revoked."""
    own_kafka.create_topics({"hung": 1})
    produce(own_kafka.address, "hung", numbers(600))
    silence = {"session_timeout_ms": 1_500, "socket_timeout_ms": 2_000}
    with consuming(
        own_kafka.address, "hung", "hung", room=5, ahead=False, **silence
    ) as consumer:
        held = take(consumer, 5)
        partition = held[0].partition
        # Nothing of what was fetched can be handed out: so no more is fetched.
        wait_for(lambda: partition.paused, 20)
        with own_kafka.frozen():
            wait_for(lambda: partition.gone, 20)
        seen = set()
        while len(seen) < 600:
            for record in take(consumer, timeout=30):
                seen.add(record.offset)
                consumer.settle([record])

    assert seen == set(range(600))


def test_what_is_held_back_holds_up_nothing_else(kafka: Kafka, topic: str) -> None:
    held = f"{topic}.held"
    kafka.create_topics({held: 1})
    due = float("inf")
    produce(kafka.address, held, numbers(300))
    produce(kafka.address, topic, numbers(5))
    with consuming(
        kafka.address,
        topic,
        topic,
        held,
        delayed=lambda name: name == held,
        due=lambda record: due if int(record.value()) >= 10 else 0.0,
    ) as consumer:
        early = take(consumer, 15)
        consumer.settle(early)
        assert Counter(a.partition.topic for a in early) == {topic: 5, held: 10}
        assert nothing_comes(consumer)
        due = time.time() + 0.3
        consumer.settle(take(consumer, 1))
        assert time.time() >= due
        seen = 1
        while seen < 290:
            records = take(consumer)
            seen += len(records)
            consumer.settle(records)


def test_keys_go_on_beside_each_other_and_each_in_its_order(
    kafka: Kafka, topic: str
) -> None:
    produce(kafka.address, topic, numbers(12), key=lambda v: b"%d" % (int(v) % 3))
    with consuming(kafka.address, topic, topic, ordering="key") as consumer:
        first = take(consumer, 3)
        assert sorted(map(int, values(first))) == [0, 1, 2]
        assert nothing_comes(consumer)
        of_one = next(a for a in first if a.record.key() == b"1")
        for number in (4, 7, 10):
            consumer.settle([of_one])
            (of_one,) = take(consumer)
            assert of_one.record.value() == b"%d" % number


def test_records_without_a_key_are_in_no_order(kafka: Kafka, topic: str) -> None:
    produce(kafka.address, topic, numbers(12))
    with consuming(kafka.address, topic, topic, ordering="key") as consumer:
        assert values(take(consumer, 12)) == numbers(12)


def test_a_partition_in_its_order_holds_up_no_other_one(
    kafka: Kafka, topic: str
) -> None:
    produce(kafka.address, topic, numbers(12), partition=lambda n: n % 2)
    with consuming(kafka.address, topic, topic, ordering="partition") as consumer:
        first = take(consumer, 2)
        assert sorted(values(first)) == [b"0", b"1"]
        assert nothing_comes(consumer)
        even = min(first, key=lambda a: int(a.record.value()))
        for number in (2, 4, 6):
            consumer.settle([even])
            (even,) = take(consumer)
            assert even.record.value() == b"%d" % number


def test_a_retry_holds_back_its_key_and_survives(
    kafka: Kafka, topic: str, group: Group
) -> None:
    produce(kafka.address, topic, numbers(4), key=lambda v: b"%d" % (int(v) % 2))
    with consuming(kafka.address, topic, topic, ordering="key") as consumer:
        even, odd = sorted(take(consumer, 2), key=lambda a: int(a.record.value()))
        consumer.postpone(even, 2, 0.5)
        consumer.settle([odd])
        assert values(take(consumer)) == [b"3"]
        began = time.monotonic()
        (again,) = take(consumer)
        assert time.monotonic() - began > 0.2
        assert (again.record.value(), again.attempt) == (b"0", 2)
        consumer.postpone(again, 3, 60)
        assert nothing_comes(consumer)
        wait_for(lambda: group.metadata().get("notes") == [0, 3, 0, 0])
    with consuming(kafka.address, topic, topic, ordering="key") as consumer:
        again = next(a for a in take(consumer, 2) if a.record.value() == b"0")
        assert (again.attempt, again.redelivered) == (3, False)
        consumer.settle([again])
        assert values(take(consumer)) == [b"2"]


def test_suspects_come_alone_where_there_is_an_order(
    kafka: Kafka, topic: str, group: Group
) -> None:
    produce(kafka.address, topic, numbers(8), key=lambda value: value)
    # Of six in flight two were done; the fifth was alone already when it died.
    group.commit(0, '{"qconsume":1,"upto":6,"notes":[4,2,1,1],"done":[1,2]}')
    with consuming(kafka.address, topic, topic, ordering="key") as consumer:
        for number, attempt, deaths in ((0, None, None), (3, None, None), (4, 2, 2)):
            (suspect,) = take(consumer)
            assert suspect.record.value() == b"%d" % number
            told = suspect.redelivered, suspect.attempt, suspect.deaths
            assert told == (True, attempt, deaths)
            at = number, attempt or 1, deaths or 0, 1
            # By their distance from the first one, which is this.
            assert group.metadata()["notes"][:4] == [0, *at[1:]]
            assert nothing_comes(consumer, 0.1)
            consumer.settle([suspect])
        (last,) = take(consumer)
        assert (last.record.value(), last.redelivered) == (b"5", True)
        consumer.settle([last])
        fresh = take(consumer, 2)
        assert [a.redelivered for a in fresh] == [False, False]


def test_suspects_of_several_partitions_come_alone_too(
    kafka: Kafka, topic: str, group: Group
) -> None:
    """Otherwise one suspect that kills the process would charge all of them."""
    everywhere = Group(kafka.address, topic, topic, PARTITIONS)
    produce(kafka.address, topic, numbers(8), partition=lambda n: n % PARTITIONS)
    for partition in range(PARTITIONS):
        everywhere.commit(0, '{"qconsume":1,"upto":1}', partition)
    with consuming(kafka.address, topic, topic, ordering="key") as consumer:
        seen = set()
        while len(seen) < PARTITIONS:
            found = take(consumer)
            tried = [each for each in found if each.redelivered]
            assert len(tried) <= 1
            seen.update(each.partition.number for each in tried)
            if tried:
                # Records handed out beside it were no suspects.
                beside = [*found, *more(consumer)]
                assert [each for each in beside if each.redelivered] == tried
                found = beside
            consumer.settle(found)


def more(consumer: KafkaConsumer) -> list[ReadyRecord]:
    """Return the records that come within a moment."""
    consumer.wait(0.2)
    return consumer.take(100)


def test_a_topic_made_anew_is_read_from_its_beginning(
    kafka: Kafka, topic: str, group: Group
) -> None:
    group.commit(500, '{"qconsume":1,"upto":600,"done":[1,2]}')
    produce(kafka.address, topic, numbers(5))
    with consuming(kafka.address, topic, topic) as consumer:
        records = take(consumer, 5)
        assert values(records) == numbers(5)
        assert not any(a.redelivered for a in records)
        consumer.settle(records)
        group.await_offsets(5)


def deleted(kafka: Kafka, topic: str, before: int) -> None:
    """Delete the older records of partition 0, as the end of their retention does."""
    place = TopicPartition(topic, 0, before)
    admin = kafka.admin()
    for future in admin.delete_records([place]).values():
        future.result(10)


@STRATEGIES
def test_records_that_are_deleted_unread_are_logged(
    kafka: Kafka, topic: str, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"partition_assignment_strategy": strategy}
    produce(kafka.address, topic, numbers(1))
    with consuming(kafka.address, topic, topic, **options) as consumer:
        (first,) = take(consumer)
        consumer._shared.is_paused = True  # It reads on only when that is over.
        wait_for(lambda: first.partition.paused is True)
        produce(kafka.address, topic, numbers(60)[1:])
        produce(kafka.address, topic, [b"other"] * 3, partition=1)
        deleted(kafka, topic, 40)
        consumer._shared.is_paused = False
        consumer.settle([first])
        seen: list[bytes] = []
        while len(seen) < 20 + 3:
            records = take(consumer)
            seen += values(records)
            consumer.settle(records)
        assert sorted(seen) == sorted([*numbers(60)[40:], *[b"other"] * 3])
    assert f"records 1 to 39 of partition 0 of the topic '{topic}'" in caplog.text
    assert "(39 at the most)" in caplog.text
    assert "goes on at 40" in caplog.text


def test_records_that_were_deleted_without_a_reader_are_logged(
    kafka: Kafka, topic: str, group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    produce(kafka.address, topic, numbers(10))
    group.commit(2, "")
    deleted(kafka, topic, 7)
    with consuming(kafka.address, topic, topic) as consumer:
        records = take(consumer, 3)
        assert values(records) == numbers(10)[7:]
        consumer.settle(records)
        group.await_offsets(10)
    assert "records 2 to 6 of partition 0" in caplog.text


def test_an_end_that_is_lost_is_told(
    kafka: Kafka, topic: str, group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    group.commit(500, "")
    produce(kafka.address, topic, numbers(5))
    with consuming(kafka.address, topic, topic) as consumer:
        assert values(take(consumer, 5)) == numbers(5)
    assert "ends at 5, though it was read up to 500" in caplog.text


def test_topics_that_appear_are_found_by_a_pattern(
    kafka: Kafka, kafka_prefix: str, topic: str
) -> None:
    pattern = f"^{kafka_prefix}or"
    with consuming(kafka.address, topic, pattern) as consumer:
        later = f"{kafka_prefix}ordinary"
        kafka.create_topics({later: 1})
        produce(kafka.address, later, numbers(1))
        (found,) = take(consumer)
        assert found.partition.topic == later


def closed_port() -> str:
    return f"127.0.0.1:{free_port()}"


def started(settings: dict[str, t.Any]) -> tuple[BrokerError, int]:
    """Return why it does not start, and how often the hub had its turn meanwhile."""
    consumer = KafkaConsumer(settings, ["orders"], ConsumerTerms(1))
    with Ticks() as ticks, pytest.raises(BrokerError) as caught:
        consumer.start()
    return caught.value, ticks.count


def test_a_broker_that_is_not_there_is_an_error_and_does_not_stop_the_hub() -> None:
    error, turns = started(config(closed_port(), "group"))
    assert isinstance(error, BrokerUnavailable)
    assert "Kafka does not answer" in str(error)
    assert turns > 20


def test_a_wrong_password_is_told(kafka: Kafka) -> None:
    error, _ = started(
        config(
            f"127.0.0.1:{kafka.secured_port}",
            "group",
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="guest",
            sasl_password="wrong",
        )
    )
    assert isinstance(error, BrokerRefused)
    assert "Check the user and the password" in str(error)
    assert "wrong" not in str(error)


def test_a_setting_that_does_not_exist_is_told() -> None:
    error, _ = started(config(closed_port(), "group", no_such_thing=1))
    assert 'No such configuration property: "no.such.thing"' in str(error)


def test_one_that_is_closed_while_it_starts_lets_its_starter_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        consumer = KafkaConsumer(
            config(f"{host}:{port}", "group"), ["x"], ConsumerTerms(1)
        )
        starting = gevent.spawn(consumer.start)
        wait_for(lambda: consumer.is_started)
        consumer.close(0)
        starting.get(timeout=4)


def test_one_that_was_never_started_does_nothing_and_is_well() -> None:
    consumer = KafkaConsumer(
        config(closed_port(), "group"), ["orders"], ConsumerTerms(1)
    )
    consumer.wait(0.01)
    consumer.check()
    assert consumer.take(1) == []
    assert not consumer.is_away
    assert consumer.close(0)
    consumer.start()
    assert not consumer.is_started
