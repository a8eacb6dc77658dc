"""In which order arrivals are handed out, and what a slot lets be handed out at all."""

from __future__ import annotations

import typing as t
from collections import deque

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_qconsume import BrokerError
from flask_qconsume import BrokerRefused
from flask_qconsume import BrokerUnavailable
from flask_qconsume.brokers.kafka.client.consumer_thread import ConsumerTerms
from flask_qconsume.brokers.kafka.client.consumer_thread import ConsumerThread
from flask_qconsume.brokers.kafka.client.consumer_thread import FlowControl
from flask_qconsume.brokers.kafka.client.consumer_thread import OffsetCommits
from flask_qconsume.brokers.kafka.client.errors import is_refusal
from flask_qconsume.brokers.kafka.client.errors import translate_error
from flask_qconsume.brokers.kafka.client.offsets import LIMIT
from flask_qconsume.brokers.kafka.client.offsets import CommitMetadata
from flask_qconsume.brokers.kafka.client.offsets import CommitState
from flask_qconsume.brokers.kafka.client.offsets import OffsetTracker
from flask_qconsume.brokers.kafka.client.offsets import written
from flask_qconsume.brokers.kafka.client.ordering import OrderedQueue
from flask_qconsume.brokers.kafka.client.ordering import UnorderedQueue
from flask_qconsume.brokers.kafka.client.ordering import create_queue
from flask_qconsume.brokers.kafka.client.partition import AssignedPartition
from flask_qconsume.brokers.kafka.client.partition import ReadyRecord
from flask_qconsume.native_threads import ThreadNotifier

EVERYTHING = 10**6


class Fetched(t.NamedTuple):
    """A record, as far as anybody here looks at it."""

    number: int
    named: bytes | None = None
    size: int = 10

    def key(self) -> bytes | None:
        return self.named

    def offset(self) -> int:
        return self.number

    def __len__(self) -> int:
        return self.size


def slot_of(partition: int = 0, **options: t.Any) -> AssignedPartition:
    return AssignedPartition("orders", partition, OffsetTracker(), **options)


def test_what_is_committed_as_done_is_known() -> None:
    one = AssignedPartition("orders", 0, OffsetTracker())
    assert not one.has_committed(5)
    one.committed = CommitState(5, written(5, CommitMetadata(upto=9, done=[(6, 8)])))
    assert [one.has_committed(n) for n in range(3, 10)] == [
        *(True, True, False),
        *(True, True, False, False),
    ]
    one.gone = True  # Nothing is ever committed for it again, by us.
    assert one.has_committed(9)


def arrivals(slot: AssignedPartition, *keys: bytes | None) -> list[ReadyRecord]:
    return [ReadyRecord(slot, n, Fetched(n, key)) for n, key in enumerate(keys)]


@pytest.mark.parametrize("ordering", ["none", "key", "partition"])
def test_what_is_not_handed_out_is_cleared_or_forgotten(ordering: str) -> None:
    order, kept, gone = create_queue(ordering), slot_of(0), slot_of(1)
    order.add(arrivals(kept, b"a", b"a", b"b") + arrivals(gone, b"a", b"a"))
    (first,) = order.take(1, 0)
    gone.leaving = gone.gone = True
    order.drop(gone)
    found = order.clear()
    assert {arrival.slot for arrival in found} == {kept}
    assert len(found) == 2
    assert order.take(EVERYTHING, 0) == []
    order.settled([first])
    assert order.take(EVERYTHING, 0) == []


@pytest.mark.parametrize("ordering", ["none", "key", "partition"])
def test_nothing_of_a_slot_that_leaves_is_handed_out(ordering: str) -> None:
    order, slot = create_queue(ordering), slot_of()
    order.add(arrivals(slot, b"a", b"b"))
    slot.leaving = True
    assert order.take(EVERYTHING, 0) == []
    assert slot.handed == 0


def test_a_postponed_arrival_keeps_its_place() -> None:
    order, slot = create_queue("key"), slot_of()
    order.add(arrivals(slot, b"a", b"b", b"a"))
    first, second = order.take(EVERYTHING, 0)
    order.postpone(first, 10.0)
    assert (slot.handed, slot.blocked) == (1, 2)
    order.settled([second])
    assert order.next_due() == 10.0
    assert order.take(EVERYTHING, 9.9) == []
    assert order.take(EVERYTHING, 10.0) == [first]
    assert order.settled([first])
    assert [arrival.offset for arrival in order.take(EVERYTHING, 10)] == [2]
    assert slot.blocked == 0
    assert order.next_due() is None


def test_what_is_postponed_is_cleared_and_forgotten_too() -> None:
    order, slot, other = create_queue("key"), slot_of(0), slot_of(1)
    order.add(arrivals(slot, b"a") + arrivals(other, b"a"))
    first, second = order.take(EVERYTHING, 0)
    order.postpone(first, 1.0)
    order.postpone(second, 1.0)
    order.drop(other)
    assert order.clear() == [first]
    assert order.next_due() is None


def test_there_is_no_place_to_keep_without_an_order() -> None:
    order, slot = UnorderedQueue(), slot_of()
    (arrival,) = arrivals(slot, b"a")
    with pytest.raises(NotImplementedError):
        order.postpone(arrival, 1.0)


DEEDS = ["come", "take", "settle", "postpone", "wait"]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_each_lane_comes_one_by_one_in_its_order_and_nothing_is_lost(
    data: t.Any,
) -> None:
    slots = [slot_of(0), slot_of(1)]
    keys = st.lists(st.sampled_from([None, b"a", b"b", b"c"]), max_size=20)
    coming = {slot: deque(arrivals(slot, *data.draw(keys))) for slot in slots}
    total = sum(len(each) for each in coming.values())
    order = OrderedQueue(lambda arrival: arrival.record.key())
    held: list[ReadyRecord] = []
    done: list[ReadyRecord] = []
    now = 0.0
    for _ in range(data.draw(st.integers(0, 80))):
        deed = data.draw(
            st.sampled_from(["come", "take", "settle", "postpone", "wait"])
        )
        if deed == "come":
            waiting = coming[data.draw(st.sampled_from(slots))]
            order.add([waiting.popleft()] if waiting else [])
        elif deed == "take":
            held += order.take(data.draw(st.integers(1, 3)), now)
        elif deed == "wait":
            now += 1
        elif held:
            arrival = held.pop(data.draw(st.integers(0, len(held) - 1)))
            if deed == "settle":
                done.append(arrival)
                order.settled([arrival])
            else:
                order.postpone(arrival, now + data.draw(st.integers(0, 3)))
        _check_lanes(held, done)
    for waiting in coming.values():
        order.add(waiting)
    while more := held or order.take(EVERYTHING, now + 10):
        _check_lanes(more, done)
        held = []
        done += more
        order.settled(more)
    assert len(done) == len(set(done)) == total
    assert all(
        slot.blocked == 0 and slot.handed == len(set(done) & _of(done, slot))
        for slot in slots
    )


def _of(found: list[ReadyRecord], slot: AssignedPartition) -> set[ReadyRecord]:
    return {arrival for arrival in found if arrival.slot is slot}


def _check_lanes(held: list[ReadyRecord], done: list[ReadyRecord]) -> None:
    in_hand: set[t.Any] = set()
    for arrival in held:
        key = arrival.record.key()
        lane = arrival.slot, key
        assert key is None or lane not in in_hand
        in_hand.add(lane)
    last: dict[t.Any, int] = {}
    for arrival in done:
        lane = arrival.slot, arrival.record.key()
        assert lane[1] is None or last.get(lane, -1) < arrival.offset
        last[lane] = arrival.offset


# -- slots ----------------------------------------------------------------------------


def filled(slot: AssignedPartition, count: int, **options: t.Any) -> AssignedPartition:
    for number in range(count):
        slot.fetched(Fetched(number, **options))
    return slot


def test_what_is_not_due_is_not_marked() -> None:
    slot = filled(slot_of(due=lambda record: float(record.offset())), 5)
    assert slot.mark(EVERYTHING, 2.0) == 3
    assert (slot.open, len(slot.buffer), slot.size) == (3, 2, 20)
    assert slot.mark(EVERYTHING, 2.5) == 0
    assert slot.mark(1, 9.0) == 1


def test_a_slot_that_stands_still_is_stuck_until_it_moves() -> None:
    slot = filled(slot_of(), 500)
    slot.look(1.0)
    slot.look(1.5)
    assert not slot.stuck
    slot.look(2.5)
    assert slot.stuck
    slot.mark(300, 0.0)
    slot.look(3.0)
    assert slot.stuck
    slot.mark(150, 0.0)
    slot.look(3.5)
    assert not slot.stuck
    assert "orders/0" in repr(slot)


def test_a_slot_with_few_records_is_never_stuck() -> None:
    slot = filled(slot_of(), 20)
    slot.look(1.0)
    slot.look(100.0)
    assert not slot.stuck


class Client:
    """What :class:`FlowControl` and :class:`OffsetCommits` ask of the client."""

    def __init__(self) -> None:
        self.paused: set[int] = set()
        self.fails: KafkaError | None = None
        self.commits: list[list[TopicPartition]] = []

    def pause(self, places: list[TopicPartition]) -> None:
        self._check()
        self.paused |= {place.partition for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self._check()
        self.paused -= {place.partition for place in places}

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self._check()
        self.commits.append(offsets)

    def _check(self) -> None:
        if self.fails is not None:
            raise KafkaException(self.fails)


def client() -> t.Any:
    return Client()


def test_too_much_is_paused_at_once_and_goes_on_when_half_is_gone() -> None:
    flow, asked, slot = FlowControl(), client(), filled(slot_of(), 250)
    flow.look(asked, [slot], 100, False)
    assert flow.room <= 0
    assert asked.paused == {0}
    slot.mark(190, 0.0)
    flow._next = 0.0
    flow.look(asked, [slot], 100, False)
    assert asked.paused == {0}
    slot.mark(20, 0.0)
    flow._next = 0.0
    flow.look(asked, [slot], 100, False)
    assert asked.paused == set()
    assert flow.room == 60


def test_a_partition_that_comes_gets_the_state_of_all_others() -> None:
    """The client may have it as it was when it was lost, which nobody told us."""
    flow, asked, first = FlowControl(), client(), filled(slot_of(), 250)
    flow.look(asked, [first], 100, False)
    coming = slot_of(1)
    flow._next = 0.0
    flow.look(asked, [first, coming], 100, False)
    assert asked.paused == {0, 1}
    again = slot_of(1)
    first.mark(EVERYTHING, 0.0)
    flow._next = 0.0
    flow.look(asked, [first, again], 100, False)
    assert asked.paused == set()


class Moving(Client):
    """A client in whose callbacks a pause or its end would wait for ever."""

    def pause(self, places: list[TopicPartition]) -> None:
        raise AssertionError("asked for in a callback")

    resume = pause

    def assign(self, places: list[TopicPartition]) -> None:
        """Taken, as it is in a callback."""

    def committed(
        self, places: list[TopicPartition], timeout: float
    ) -> list[TopicPartition]:
        return places


@pytest.mark.parametrize("leave", [ConsumerThread._lost, ConsumerThread._revoked])
def test_while_partitions_move_none_is_paused_or_resumed(
    committing: Committing, leave: t.Any
) -> None:
    """A worker went silent by that: the call in the callback never returned."""
    _, member, _ = committing
    asked: t.Any = Moving()
    member._consumer = asked
    places = [TopicPartition("orders", 0)]
    member._assigned(asked, places)
    (slot,) = member._slots.values()
    slot.paused = True
    leave(member, asked, places)
    member._assigned(asked, places)
    (again,) = member._slots.values()
    assert slot.gone
    # So the next look, outside of all callbacks, resumes it.
    assert again.paused is None


def test_large_records_take_room_by_their_size() -> None:
    flow, slot = FlowControl(), filled(slot_of(), 8, size=1024 * 1024)
    flow.look(client(), [slot], 1_000, False)
    assert flow.room == 8
    filled(slot_of(), 0)
    for number in range(8, 17):
        slot.fetched(Fetched(number, size=1024 * 1024))
    flow.look(client(), [slot], 1_000, False)
    assert flow.room == 0


def test_a_pause_that_the_client_refuses_is_tried_again() -> None:
    flow, asked, slot = FlowControl(), client(), filled(slot_of(), 250)
    asked.fails = KafkaError(KafkaError._STATE)
    flow.look(asked, [slot], 100, False)
    assert not slot.paused
    asked.fails = None
    flow._next = 0.0
    flow.look(asked, [slot], 100, False)
    assert slot.paused


# -- commits --------------------------------------------------------------------------


Committing = tuple[OffsetCommits, ConsumerThread, t.Any]


@pytest.fixture
def committing() -> t.Iterator[Committing]:
    """With a room of 10, and a client that does nothing yet."""
    notifier = ThreadNotifier()
    member = ConsumerThread({}, [], ConsumerTerms(10), notifier)
    yield member._commits, member, client()
    notifier.close()


def marked(count: int = 3) -> AssignedPartition:
    slot = filled(slot_of(), count)
    slot.mark(EVERYTHING, 0.0)
    return slot


def test_a_commit_that_fails_is_made_again_and_hands_out_nothing(
    committing: Committing,
) -> None:
    commits, member, asked = committing
    slot = marked()
    commits.send(asked, [slot])
    assert len(commits.unanswered) == 3
    moving = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
    assert commits.answered(moving, []) == []
    assert (len(slot.waiting), slot.dirty, commits.pending) == (3, True, False)
    assert not member.arrived
    commits._next = 0.0
    commits.send(asked, [slot])
    assert commits.answered(None, asked.commits[1]) == []
    assert [len(each) for each in member.arrived] == [3]


def test_the_answer_to_a_commit_that_was_recalled_is_not_the_next_ones(
    committing: Committing,
) -> None:
    commits, member, asked = committing
    slot = marked()
    commits.send(asked, [slot])
    commits.recall()
    slot.window.settle(0)
    commits._next = 0.0
    commits.send(asked, [slot])
    assert commits.answered(None, asked.commits[0]) == []
    assert not member.arrived
    commits.answered(None, asked.commits[1])
    assert [len(each) for each in member.arrived] == [3]


def test_metadata_that_is_too_long_for_the_broker_is_made_shorter(
    committing: Committing,
) -> None:
    commits, _, asked = committing
    slot = marked()
    commits.send(asked, [slot])
    long = KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE)
    assert commits.answered(long, []) == []
    assert slot.limit == LIMIT // 2


def test_why_a_commit_failed_is_told(committing: Committing) -> None:
    commits, member, asked = committing
    slot = marked()
    commits.send(asked, [slot])
    refused = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    assert commits.answered(refused, []) == [refused]
    asked.fails = KafkaError(KafkaError._FAIL)
    commits._next = 0.0
    commits.send(asked, [slot])
    assert [level for level, _ in member.told] == [30]
    commits.leave(asked, [slot])
    assert len(member.told) == 2
    member._trouble(refused)
    assert isinstance(member.error, BrokerRefused)


def test_a_trouble_is_told_once(committing: Committing) -> None:
    _, member, _ = committing
    for _ in range(3):
        member._trouble(KafkaError(KafkaError._TRANSPORT))
        member._trouble(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert len(member.told) == 2
    assert "flask qconsume declare" in member.told[1][1]


def test_more_is_marked_ahead_the_faster_it_goes(committing: Committing) -> None:
    commits, _, asked = committing
    commits.settled = 100
    commits.send(asked, [])
    assert commits.room == 210
    for _ in range(40):
        commits._next = 0.0
        commits.send(asked, [])
    assert commits.room == 10


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KafkaError(KafkaError._AUTHENTICATION), BrokerRefused),
        (KafkaException(KafkaError(KafkaError._TIMED_OUT)), BrokerUnavailable),
        (KafkaError(KafkaError._FATAL), BrokerError),
        (ValueError("x"), BrokerError),
    ],
)
def test_what_the_client_raises_is_ours(error: t.Any, kind: type[Exception]) -> None:
    assert type(translate_error(error)) is kind


def test_a_refusal_stays_one() -> None:
    assert is_refusal(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED))
    assert not is_refusal(KafkaError(KafkaError._TRANSPORT))
