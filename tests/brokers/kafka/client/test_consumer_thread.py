"""In which order records are handed out, and what a one lets be handed out at all."""

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
from flask_qconsume.brokers.kafka.client.commits import OffsetCommits
from flask_qconsume.brokers.kafka.client.consumer_thread import ConsumerThread
from flask_qconsume.brokers.kafka.client.errors import is_refusal
from flask_qconsume.brokers.kafka.client.errors import translate_error
from flask_qconsume.brokers.kafka.client.flow_control import FlowControl
from flask_qconsume.brokers.kafka.client.membership import Membership
from flask_qconsume.brokers.kafka.client.offsets import METADATA_LIMIT_BYTES
from flask_qconsume.brokers.kafka.client.offsets import CommitMetadata
from flask_qconsume.brokers.kafka.client.offsets import CommitState
from flask_qconsume.brokers.kafka.client.offsets import OffsetTracker
from flask_qconsume.brokers.kafka.client.offsets import encode_metadata
from flask_qconsume.brokers.kafka.client.ordering import OrderedQueue
from flask_qconsume.brokers.kafka.client.ordering import UnorderedQueue
from flask_qconsume.brokers.kafka.client.ordering import create_queue
from flask_qconsume.brokers.kafka.client.partition import AssignedPartition
from flask_qconsume.brokers.kafka.client.partition import ReadyRecord
from flask_qconsume.brokers.kafka.client.shared_state import SharedState
from flask_qconsume.brokers.kafka.client.terms import ConsumerTerms
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


def new_partition(number: int = 0, **options: t.Any) -> AssignedPartition:
    return AssignedPartition("orders", number, OffsetTracker(), **options)


def test_what_is_committed_as_done_is_known() -> None:
    one = AssignedPartition("orders", 0, OffsetTracker())
    assert not one.has_committed(5)
    one.committed = CommitState(
        5, encode_metadata(5, CommitMetadata(upto=9, done=[(6, 8)]))
    )
    assert [one.has_committed(n) for n in range(3, 10)] == [
        *(True, True, False),
        *(True, True, False, False),
    ]
    one.gone = True  # Nothing is ever committed for it again, by us.
    assert one.has_committed(9)


def records_of(partition: AssignedPartition, *keys: bytes | None) -> list[ReadyRecord]:
    return [ReadyRecord(partition, n, Fetched(n, key)) for n, key in enumerate(keys)]


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
def test_nothing_of_a_slot_that_leaves_is_handed_out(ordering: str) -> None:
    order, one = create_queue(ordering), new_partition()
    order.add(records_of(one, b"a", b"b"))
    one.leaving = True
    assert order.take(EVERYTHING, 0) == []
    assert one.handed_count == 0


def test_a_postponed_arrival_keeps_its_place() -> None:
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
def test_each_lane_comes_one_by_one_in_its_order_and_nothing_is_lost(
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
        _check_lanes(held, done)
    for waiting in coming.values():
        order.add(waiting)
    while more := held or order.take(EVERYTHING, now + 10):
        _check_lanes(more, done)
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


def _check_lanes(held: list[ReadyRecord], done: list[ReadyRecord]) -> None:
    in_hand: set[t.Any] = set()
    for record in held:
        key = record.record.key()
        lane = record.partition, key
        assert key is None or lane not in in_hand
        in_hand.add(lane)
    last: dict[t.Any, int] = {}
    for record in done:
        lane = record.partition, record.record.key()
        assert lane[1] is None or last.get(lane, -1) < record.offset
        last[lane] = record.offset


# -- partitions -----------------------------------------------------------------------


def filled(one: AssignedPartition, count: int, **options: t.Any) -> AssignedPartition:
    for number in range(count):
        one.add_fetched(Fetched(number, **options))
    return one


def test_what_is_not_due_is_not_marked() -> None:
    one = filled(new_partition(due=lambda record: float(record.offset())), 5)
    assert one.mark(EVERYTHING, 2.0) == 3
    assert (one.unsettled, len(one.buffer), one.buffered_bytes) == (3, 2, 20)
    assert one.mark(EVERYTHING, 2.5) == 0
    assert one.mark(1, 9.0) == 1


def test_a_slot_that_stands_still_is_stuck_until_it_moves() -> None:
    one = filled(new_partition(), 500)
    one.update_stuck(1.0)
    one.update_stuck(1.5)
    assert not one.is_stuck
    one.update_stuck(2.5)
    assert one.is_stuck
    one.mark(300, 0.0)
    one.update_stuck(3.0)
    assert one.is_stuck
    one.mark(150, 0.0)
    one.update_stuck(3.5)
    assert not one.is_stuck
    assert "orders/0" in repr(one)


def test_a_slot_with_few_records_is_never_stuck() -> None:
    one = filled(new_partition(), 20)
    one.update_stuck(1.0)
    one.update_stuck(100.0)
    assert not one.is_stuck


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
    flow, asked, one = FlowControl(), client(), filled(new_partition(), 250)
    flow.update(asked, [one], 100, False)
    assert flow.room <= 0
    assert asked.paused == {0}
    one.mark(190, 0.0)
    flow._next_look = 0.0
    flow.update(asked, [one], 100, False)
    assert asked.paused == {0}
    one.mark(20, 0.0)
    flow._next_look = 0.0
    flow.update(asked, [one], 100, False)
    assert asked.paused == set()
    assert flow.room == 60


def test_a_partition_that_comes_gets_the_state_of_all_others() -> None:
    """The client may have it as it was when it was lost, which nobody told us."""
    flow, asked, first = FlowControl(), client(), filled(new_partition(), 250)
    flow.update(asked, [first], 100, False)
    coming = new_partition(1)
    flow._next_look = 0.0
    flow.update(asked, [first, coming], 100, False)
    assert asked.paused == {0, 1}
    again = new_partition(1)
    first.mark(EVERYTHING, 0.0)
    flow._next_look = 0.0
    flow.update(asked, [first, again], 100, False)
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


@pytest.mark.parametrize("leave", [Membership.on_lost, Membership.on_revoked])
def test_while_partitions_move_none_is_paused_or_resumed(
    thread: ConsumerThread, leave: t.Any
) -> None:
    """A worker went silent by that: the call in the callback never returned."""
    member, known = thread._membership, thread._assignment.partitions
    asked: t.Any = Moving()
    places = [TopicPartition("orders", 0)]
    member.on_assigned(asked, places)
    (one,) = known.values()
    one.paused = True
    leave(member, asked, places)
    member.on_assigned(asked, places)
    (again,) = known.values()
    assert one.gone
    # So the next look, outside of all callbacks, resumes it.
    assert again.paused is None


def test_large_records_take_room_by_their_size() -> None:
    flow, one = FlowControl(), filled(new_partition(), 8, size=1024 * 1024)
    flow.update(client(), [one], 1_000, False)
    assert flow.room == 8
    filled(new_partition(), 0)
    for number in range(8, 17):
        one.add_fetched(Fetched(number, size=1024 * 1024))
    flow.update(client(), [one], 1_000, False)
    assert flow.room == 0


def test_a_pause_that_the_client_refuses_is_tried_again() -> None:
    flow, asked, one = FlowControl(), client(), filled(new_partition(), 250)
    asked.fails = KafkaError(KafkaError._STATE)
    flow.update(asked, [one], 100, False)
    assert not one.paused
    asked.fails = None
    flow._next_look = 0.0
    flow.update(asked, [one], 100, False)
    assert one.paused


# -- commits --------------------------------------------------------------------------


Committing = tuple[OffsetCommits, SharedState, t.Any]


@pytest.fixture
def shared() -> t.Iterator[SharedState]:
    notifier = ThreadNotifier()
    yield SharedState(notifier)
    notifier.close()


@pytest.fixture
def thread(shared: SharedState) -> ConsumerThread:
    return ConsumerThread({}, [], ConsumerTerms(10), shared)


@pytest.fixture
def committing(shared: SharedState) -> Committing:
    """With a room of 10, and a client that does nothing yet."""
    return OffsetCommits(ConsumerTerms(10), shared), shared, client()


def marked(count: int = 3) -> AssignedPartition:
    one = filled(new_partition(), count)
    one.mark(EVERYTHING, 0.0)
    return one


def test_a_commit_that_fails_is_made_again_and_hands_out_nothing(
    committing: Committing,
) -> None:
    commits, shared, asked = committing
    one = marked()
    commits.send(asked, [one])
    assert len(commits.unanswered) == 3
    moving = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
    assert commits.on_answer(moving, []) == []
    assert (len(one.awaiting_commit), one.dirty, commits.is_pending) == (3, True, False)
    assert not shared.ready
    commits._next_commit = 0.0
    commits.send(asked, [one])
    assert commits.on_answer(None, asked.commits[1]) == []
    assert [len(each) for each in shared.ready] == [3]


def test_the_answer_to_a_commit_that_was_recalled_is_not_the_next_ones(
    committing: Committing,
) -> None:
    commits, shared, asked = committing
    one = marked()
    commits.send(asked, [one])
    commits.recall()
    one.offsets.settle(0)
    commits._next_commit = 0.0
    commits.send(asked, [one])
    assert commits.on_answer(None, asked.commits[0]) == []
    assert not shared.ready
    commits.on_answer(None, asked.commits[1])
    assert [len(each) for each in shared.ready] == [3]


def test_metadata_that_is_too_long_for_the_broker_is_made_shorter(
    committing: Committing,
) -> None:
    commits, _, asked = committing
    one = marked()
    commits.send(asked, [one])
    long = KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE)
    assert commits.on_answer(long, []) == []
    assert one.metadata_limit == METADATA_LIMIT_BYTES // 2


def test_why_a_commit_failed_is_logged(committing: Committing) -> None:
    commits, shared, asked = committing
    one = marked()
    commits.send(asked, [one])
    refused = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    assert commits.on_answer(refused, []) == [refused]
    asked.fails = KafkaError(KafkaError._FAIL)
    commits._next_commit = 0.0
    commits.send(asked, [one])
    assert [level for level, _ in shared.log_lines] == [30]
    commits.send_final_and_wait(asked, [one])
    assert len(shared.log_lines) == 2


def test_a_refusal_ends_the_thread(thread: ConsumerThread, shared: SharedState) -> None:
    thread._on_error(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    assert isinstance(shared.error, BrokerRefused)


def test_an_error_is_logged_once(thread: ConsumerThread, shared: SharedState) -> None:
    for _ in range(3):
        thread._on_error(KafkaError(KafkaError._TRANSPORT))
        thread._on_error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert len(shared.log_lines) == 2
    assert "flask qconsume declare" in shared.log_lines[1][1]


def test_more_is_marked_ahead_the_faster_it_goes(committing: Committing) -> None:
    commits, _, asked = committing
    commits.settled_count = 100
    commits.send(asked, [])
    assert commits.room == 210
    for _ in range(40):
        commits._next_commit = 0.0
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
