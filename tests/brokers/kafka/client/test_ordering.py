"""In which order records are handed out."""

from __future__ import annotations

import typing as t
from collections import deque

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_qconsume.brokers.kafka.client.ordering import OrderedQueue
from flask_qconsume.brokers.kafka.client.ordering import UnorderedQueue
from flask_qconsume.brokers.kafka.client.ordering import create_queue
from flask_qconsume.brokers.kafka.client.partition import AssignedPartition
from flask_qconsume.brokers.kafka.client.partition import ReadyRecord

from .fakes import new_partition
from .fakes import records_of

EVERYTHING = 10**6


@pytest.mark.parametrize("ordering", ["none", "key", "partition"])
def test_what_is_not_handed_out_is_cleared_or_forgotten(ordering: str) -> None:
    order, kept, gone = create_queue(ordering), new_partition(0), new_partition(1)
    order.add(records_of(kept, b"a", b"a", b"b") + records_of(gone, b"a", b"a"))
    (first,) = order.take(1, 0)
    gone.leaving = gone.gone = True
    order.drop(gone)
    found = order.clear()
    assert {record.partition for record in found} == {kept}
    assert len(found) == 2
    assert order.take(EVERYTHING, 0) == []
    order.settle([first])
    assert order.take(EVERYTHING, 0) == []


@pytest.mark.parametrize("ordering", ["none", "key", "partition"])
def test_no_record_of_a_partition_that_leaves_is_handed_out(ordering: str) -> None:
    order, one = create_queue(ordering), new_partition()
    order.add(records_of(one, b"a", b"b"))
    one.leaving = True
    assert order.take(EVERYTHING, 0) == []
    assert one.handed_count == 0


def test_a_postponed_record_keeps_its_place() -> None:
    order, one = create_queue("key"), new_partition()
    order.add(records_of(one, b"a", b"b", b"a"))
    first, second = order.take(EVERYTHING, 0)
    order.postpone(first, 10.0)
    assert (one.handed_count, one.blocked_count) == (1, 2)
    order.settle([second])
    assert order.next_due() == 10.0
    assert order.take(EVERYTHING, 9.9) == []
    assert order.take(EVERYTHING, 10.0) == [first]
    assert order.settle([first])
    assert [record.offset for record in order.take(EVERYTHING, 10)] == [2]
    assert one.blocked_count == 0
    assert order.next_due() is None


def test_what_is_postponed_is_cleared_and_forgotten_too() -> None:
    order, one, other = create_queue("key"), new_partition(0), new_partition(1)
    order.add(records_of(one, b"a") + records_of(other, b"a"))
    first, second = order.take(EVERYTHING, 0)
    order.postpone(first, 1.0)
    order.postpone(second, 1.0)
    order.drop(other)
    assert order.clear() == [first]
    assert order.next_due() is None


def test_there_is_no_place_to_keep_without_an_order() -> None:
    order, one = UnorderedQueue(), new_partition()
    (record,) = records_of(one, b"a")
    with pytest.raises(NotImplementedError):
        order.postpone(record, 1.0)


DEEDS = ["come", "take", "settle", "postpone", "wait"]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_each_key_comes_one_by_one_in_its_order_and_nothing_is_lost(
    data: t.Any,
) -> None:
    partitions = [new_partition(0), new_partition(1)]
    keys = st.lists(st.sampled_from([None, b"a", b"b", b"c"]), max_size=20)
    coming = {one: deque(records_of(one, *data.draw(keys))) for one in partitions}
    total = sum(len(each) for each in coming.values())
    order = OrderedQueue(lambda record: record.record.key())
    held: list[ReadyRecord] = []
    done: list[ReadyRecord] = []
    now = 0.0
    for _ in range(data.draw(st.integers(0, 80))):
        deed = data.draw(
            st.sampled_from(["come", "take", "settle", "postpone", "wait"])
        )
        if deed == "come":
            waiting = coming[data.draw(st.sampled_from(partitions))]
            order.add([waiting.popleft()] if waiting else [])
        elif deed == "take":
            held += order.take(data.draw(st.integers(1, 3)), now)
        elif deed == "wait":
            now += 1
        elif held:
            record = held.pop(data.draw(st.integers(0, len(held) - 1)))
            if deed == "settle":
                done.append(record)
                order.settle([record])
            else:
                order.postpone(record, now + data.draw(st.integers(0, 3)))
        _check_keys(held, done)
    for waiting in coming.values():
        order.add(waiting)
    while more := held or order.take(EVERYTHING, now + 10):
        _check_keys(more, done)
        held = []
        done += more
        order.settle(more)
    assert len(done) == len(set(done)) == total
    assert all(
        one.blocked_count == 0 and one.handed_count == len(set(done) & _of(done, one))
        for one in partitions
    )


def _of(found: list[ReadyRecord], one: AssignedPartition) -> set[ReadyRecord]:
    return {record for record in found if record.partition is one}


def _check_keys(held: list[ReadyRecord], done: list[ReadyRecord]) -> None:
    in_hand: set[t.Any] = set()
    for record in held:
        key = record.record.key()
        place = record.partition, key
        assert key is None or place not in in_hand
        in_hand.add(place)
    last: dict[t.Any, int] = {}
    for record in done:
        place = record.partition, record.record.key()
        assert place[1] is None or last.get(place, -1) < record.offset
        last[place] = record.offset
