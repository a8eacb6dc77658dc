"""Offsets of one partition: what is committed, what the next owner makes of it."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_qconsume.brokers.kafka.client.offsets import METADATA_LIMIT_BYTES
from flask_qconsume.brokers.kafka.client.offsets import CommitMetadata
from flask_qconsume.brokers.kafka.client.offsets import CommitState
from flask_qconsume.brokers.kafka.client.offsets import OffsetTracker
from flask_qconsume.brokers.kafka.client.offsets import RecordNote
from flask_qconsume.brokers.kafka.client.offsets import decode_metadata
from flask_qconsume.brokers.kafka.client.offsets import encode_metadata


def filled(
    *offsets: int, committed: int | None = None, metadata: str = ""
) -> OffsetTracker:
    tracker = OffsetTracker(committed, metadata)
    for offset in offsets:
        tracker.see(offset)
    return tracker


def taken_over(state: CommitState) -> OffsetTracker:
    return OffsetTracker(state.offset, state.metadata)


def test_the_offset_is_that_of_the_first_record_not_done() -> None:
    tracker = filled(5, 6, 7, 8)
    tracker.mark(8)
    assert tracker.base == 5
    assert tracker.settle(6)
    assert tracker.settle(7)
    assert tracker.commit_state().offset == 5
    assert tracker.settle(5)
    assert tracker.commit_state().offset == 8
    assert tracker.settle(8)
    assert tracker.commit_state() == CommitState(9, "")


def test_nothing_is_settled_twice() -> None:
    tracker = filled(5)
    assert tracker.settle(5)
    assert not tracker.settle(5)
    assert not tracker.settle(77)


def test_an_empty_window_knows_what_it_was_given() -> None:
    assert OffsetTracker().base == -1
    assert OffsetTracker(7).base == 7
    assert OffsetTracker(7).commit_state() == CommitState(7, "")


def test_what_was_done_out_of_order_is_not_handled_again() -> None:
    tracker = filled(*range(10))
    tracker.mark(9)
    for offset in (3, 4, 7):
        tracker.settle(offset)
    heir = taken_over(tracker.commit_state())
    again = [offset for offset in range(10) if heir.see(offset)]
    assert again == [0, 1, 2, 5, 6, 8, 9]
    assert all(heir.is_suspect(offset) for offset in again)
    assert not heir.is_suspect(10)


def test_only_what_was_marked_is_suspected() -> None:
    tracker = filled(*range(10))
    tracker.mark(4)
    heir = taken_over(tracker.commit_state())
    assert [offset for offset in range(10) if heir.is_suspect(offset)] == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_an_owner_that_leaves_makes_no_suspects() -> None:
    tracker = filled(*range(10))
    tracker.mark(9)
    tracker.settle(5)
    heir = taken_over(tracker.final_state())
    assert [offset for offset in range(10) if heir.see(offset)] == [
        *range(5),
        *range(6, 10),
    ]
    assert not any(heir.is_suspect(offset) for offset in range(10))


def test_an_owner_that_leaves_passes_on_the_suspects_that_it_inherited() -> None:
    tracker = filled(*range(10))
    tracker.mark(4)
    heir = taken_over(tracker.commit_state())
    heir.see(0)
    heir.settle(0)
    second = taken_over(heir.final_state())
    assert second.base == 1
    assert [offset for offset in range(10) if second.is_suspect(offset)] == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_a_record_that_is_given_back_is_no_suspect() -> None:
    tracker = filled(*range(6))
    tracker.mark(5)
    tracker.release(4)
    tracker.release(5)
    assert not taken_over(tracker.commit_state()).is_suspect(4)
    assert taken_over(tracker.commit_state()).is_suspect(3)
    # In front of one that is in flight it cannot be told suspects_alone.
    tracker = filled(0, 1)
    tracker.mark(1)
    tracker.release(0)
    assert taken_over(tracker.commit_state()).is_suspect(0)


def test_done_records_that_are_not_read_yet_stay_known() -> None:
    tracker = filled(*range(100))
    tracker.mark(99)
    for offset in range(20, 90):
        tracker.settle(offset)
    heir = taken_over(tracker.commit_state())
    for offset in range(3):
        heir.see(offset)
    heir.mark(2)
    heir.settle(0)
    second = taken_over(heir.commit_state())
    assert second.base == 1
    assert [offset for offset in range(1, 100) if second.see(offset)] == [
        *range(1, 20),
        *range(90, 100),
    ]
    assert second.is_suspect(99)


def test_gaps_in_the_offsets_take_no_room() -> None:
    """Compaction and transactions leave gaps: offsets without a record."""
    tracker = filled(*range(0, 1000, 2))
    tracker.mark(998)
    assert decode_metadata(tracker.commit_state().metadata, 0).done == []
    tracker.settle(500)
    assert decode_metadata(tracker.commit_state().metadata, 0).done == [(499, 502)]
    tracker.settle(0)
    assert tracker.base == 2


def test_a_note_stays_until_its_record_is_done() -> None:
    tracker = filled(3, 4)
    tracker.mark(4)
    tracker.annotate(4, RecordNote(attempt=3))
    tracker.annotate(9, RecordNote(attempt=7))
    heir = taken_over(tracker.final_state())
    assert heir.notes == {4: RecordNote(3)}
    tracker.settle(4)
    assert tracker.notes == {}


def test_a_death_counts_only_for_what_was_alone() -> None:
    tracker = filled(3, 4)
    tracker.mark(4)
    tracker.annotate(3, RecordNote(2, 1, alone=True))
    tracker.annotate(4, RecordNote(5, 1, alone=False))
    assert taken_over(tracker.commit_state()).notes == {
        3: RecordNote(2, 2),
        4: RecordNote(5, 1),
    }
    assert taken_over(tracker.final_state()).notes == {
        3: RecordNote(2, 1),
        4: RecordNote(5, 1),
    }


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        None,
        "{",
        "5",
        "[]",
        "somebody else's",
        '{"qconsume":2,"upto":5}',
        '{"qconsume":1}',
        '{"qconsume":1,"upto":-5}',
        '{"qconsume":1,"upto":"5"}',
        '{"qconsume":1,"upto":5,"done":[1]}',
        '{"qconsume":1,"upto":5,"done":[1,-2]}',
        '{"qconsume":1,"upto":5,"done":5}',
        '{"qconsume":1,"upto":5,"notes":[1,2]}',
        "[" * 5000,
    ],
)
def test_metadata_that_is_not_ours_says_nothing(metadata: str | None) -> None:
    assert decode_metadata(metadata, 5) == CommitMetadata()


numbers = st.integers(0, 2**40)
ranges = st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), max_size=900)
notes = st.dictionaries(
    st.integers(0, 10**7),
    st.builds(RecordNote, st.integers(1, 100), st.integers(0, 100), st.booleans()),
    max_size=400,
)


@settings(deadline=None, max_examples=50)
@given(numbers, numbers, ranges, notes, st.integers(200, METADATA_LIMIT_BYTES))
def test_metadata_comes_back_and_stays_within_its_limit(
    base: int,
    ahead: int,
    found: list[tuple[int, int]],
    notes: dict[int, RecordNote],
    limit: int,
) -> None:
    done, end = [], base
    for gap, length in found:
        done.append((end + gap, end + gap + length))
        end += gap + length
    told = CommitMetadata(
        base + ahead, done, {base + at: note for at, note in notes.items()}
    )
    text = encode_metadata(base, told, limit)
    assert len(text) <= limit
    back = decode_metadata(text, base)
    assert list(back.done) == done[: len(back.done)]
    assert back.notes.items() <= told.notes.items()
    if text:
        assert back.upto == told.upto
    else:
        assert (ahead, done, notes) == (0, [], {})
    whole = encode_metadata(base, told, 10**6)
    if whole:
        assert decode_metadata(whole, base) == told


@dataclasses.dataclass
class Life:
    """Successive owners of one partition, and what is true of its records."""

    log: list[int]
    tracker: OffsetTracker = dataclasses.field(default_factory=OffsetTracker)
    committed: CommitState | None = None
    #: What the owner has read, and not handed out yet.
    buffer: list[int] = dataclasses.field(default_factory=list)
    in_flight: set[int] = dataclasses.field(default_factory=set)
    done: set[int] = dataclasses.field(default_factory=set)
    #: What was in flight by the latest commit when its owner died, or is inherited so.
    suspects: set[int] = dataclasses.field(default_factory=set)
    done_by_commit: set[int] = dataclasses.field(default_factory=set)
    marked_by_commit: set[int] = dataclasses.field(default_factory=set)
    read_upto: int = 0

    def fetch(self) -> None:
        if self.read_upto >= len(self.log):
            return
        offset = self.log[self.read_upto]
        self.read_upto += 1
        wanted = self.tracker.see(offset)
        assert wanted == (offset not in self.done_by_commit), offset
        if wanted:
            assert self.tracker.is_suspect(offset) == (offset in self.suspects)
            self.buffer.append(offset)

    def hand_out(self, count: int) -> None:
        """As it goes: marked, committed, and only then handed out."""
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        if taken:
            self.tracker.mark(taken[-1])
            self.commit()
            self.in_flight |= set(taken)

    def settle(self, which: int) -> None:
        if self.in_flight:
            offset = sorted(self.in_flight)[which % len(self.in_flight)]
            assert self.tracker.settle(offset)
            self.in_flight.discard(offset)
            self.done.add(offset)

    def commit(self) -> None:
        if self.tracker.base < 0:
            return
        self.committed = self.tracker.commit_state(10**6)
        assert all(o in self.done for o in self.log if o < self.committed.offset)
        self.done_by_commit = set(self.done)
        told = decode_metadata(self.committed.metadata, self.committed.offset)
        self.marked_by_commit = {o for o in self.log if o < told.upto} - self.done
        assert self.in_flight <= self.marked_by_commit

    def hand_over(self, clean: bool) -> None:
        if clean and self.tracker.base >= 0:
            self.committed = self.tracker.final_state(10**6)
            self.done_by_commit = set(self.done)
            # Suspects from earlier that no owner has seen yet.
            self.marked_by_commit = self.suspects
        self.suspects = self.marked_by_commit - self.done_by_commit
        # What was done and not committed is done again.
        self.done = set(self.done_by_commit)
        self.tracker = OffsetTracker(*(self.committed or (None, "")))
        self.buffer, self.in_flight = [], set()
        start = self.committed.offset if self.committed else 0
        self.read_upto = next(
            (i for i, o in enumerate(self.log) if o >= start), len(self.log)
        )


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_nothing_is_lost_and_nothing_done_comes_again(data: t.Any) -> None:
    gaps = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=30))
    life = Life([sum(gaps[:i]) for i in range(len(gaps))])
    deeds: list[tuple[t.Callable[..., None], st.SearchStrategy[t.Any]]] = [
        (lambda _: life.fetch(), st.none()),
        (life.hand_out, st.integers(1, 5)),
        (life.settle, st.integers(0, 30)),
        (lambda _: life.commit(), st.none()),
        (life.hand_over, st.booleans()),
    ]
    for _ in range(data.draw(st.integers(0, 60))):
        deed, argument = deeds[data.draw(st.integers(0, len(deeds) - 1))]
        deed(data.draw(argument))
    life.hand_over(clean=True)
    for _ in life.log:
        life.fetch()
    life.hand_out(len(life.log))
    while life.in_flight:
        life.settle(0)
    assert life.done == set(life.log)
    life.commit()
    assert life.committed == CommitState(life.log[-1] + 1, "")
