"""A partition's window: what is committed of it, and what a successor makes of that."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_qconsume.brokers.kafka.client.offsets import LIMIT
from flask_qconsume.brokers.kafka.client.offsets import CommitMetadata
from flask_qconsume.brokers.kafka.client.offsets import CommitState
from flask_qconsume.brokers.kafka.client.offsets import OffsetTracker
from flask_qconsume.brokers.kafka.client.offsets import RecordNote
from flask_qconsume.brokers.kafka.client.offsets import read
from flask_qconsume.brokers.kafka.client.offsets import written


def filled(
    *offsets: int, committed: int | None = None, metadata: str = ""
) -> OffsetTracker:
    window = OffsetTracker(committed, metadata)
    for offset in offsets:
        window.see(offset)
    return window


def taken_over(state: CommitState) -> OffsetTracker:
    return OffsetTracker(state.offset, state.metadata)


def test_the_offset_is_that_of_the_first_record_not_done() -> None:
    window = filled(5, 6, 7, 8)
    window.mark(8)
    assert window.base == 5
    assert window.settle(6)
    assert window.settle(7)
    assert window.state().offset == 5
    assert window.settle(5)
    assert window.state().offset == 8
    assert window.settle(8)
    assert window.state() == CommitState(9, "")


def test_nothing_is_settled_twice() -> None:
    window = filled(5)
    assert window.settle(5)
    assert not window.settle(5)
    assert not window.settle(77)


def test_an_empty_window_knows_what_it_was_given() -> None:
    assert OffsetTracker().base == -1
    assert OffsetTracker(7).base == 7
    assert OffsetTracker(7).state() == CommitState(7, "")


def test_what_was_done_out_of_order_is_not_handled_again() -> None:
    window = filled(*range(10))
    window.mark(9)
    for offset in (3, 4, 7):
        window.settle(offset)
    heir = taken_over(window.state())
    again = [offset for offset in range(10) if heir.see(offset)]
    assert again == [0, 1, 2, 5, 6, 8, 9]
    assert all(heir.suspected(offset) for offset in again)
    assert not heir.suspected(10)


def test_only_what_was_marked_is_suspected() -> None:
    window = filled(*range(10))
    window.mark(4)
    heir = taken_over(window.state())
    assert [offset for offset in range(10) if heir.suspected(offset)] == [0, 1, 2, 3, 4]


def test_who_leaves_makes_no_suspects() -> None:
    window = filled(*range(10))
    window.mark(9)
    window.settle(5)
    heir = taken_over(window.left())
    assert [offset for offset in range(10) if heir.see(offset)] == [
        *range(5),
        *range(6, 10),
    ]
    assert not any(heir.suspected(offset) for offset in range(10))


def test_who_leaves_passes_on_the_suspects_that_it_inherited() -> None:
    window = filled(*range(10))
    window.mark(4)
    heir = taken_over(window.state())
    heir.see(0)
    heir.settle(0)
    second = taken_over(heir.left())
    assert second.base == 1
    assert [offset for offset in range(10) if second.suspected(offset)] == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_what_is_given_back_is_not_suspected() -> None:
    window = filled(*range(6))
    window.mark(5)
    window.release(4)
    window.release(5)
    assert not taken_over(window.state()).suspected(4)
    assert taken_over(window.state()).suspected(3)
    # In front of one that is in flight it cannot be told apart.
    window = filled(0, 1)
    window.mark(1)
    window.release(0)
    assert taken_over(window.state()).suspected(0)


def test_done_records_that_are_not_read_yet_stay_known() -> None:
    window = filled(*range(100))
    window.mark(99)
    for offset in range(20, 90):
        window.settle(offset)
    heir = taken_over(window.state())
    for offset in range(3):
        heir.see(offset)
    heir.mark(2)
    heir.settle(0)
    second = taken_over(heir.state())
    assert second.base == 1
    assert [offset for offset in range(1, 100) if second.see(offset)] == [
        *range(1, 20),
        *range(90, 100),
    ]
    assert second.suspected(99)


def test_gaps_in_the_offsets_take_no_room() -> None:
    """Compaction and transactions leave some; nobody will ever be given those."""
    window = filled(*range(0, 1000, 2))
    window.mark(998)
    assert read(window.state().metadata, 0).done == []
    window.settle(500)
    assert read(window.state().metadata, 0).done == [(499, 502)]
    window.settle(0)
    assert window.base == 2


def test_a_note_stays_until_its_record_is_done() -> None:
    window = filled(3, 4)
    window.mark(4)
    window.note(4, RecordNote(attempt=3))
    window.note(9, RecordNote(attempt=7))
    heir = taken_over(window.left())
    assert heir.notes == {4: RecordNote(3)}
    window.settle(4)
    assert window.notes == {}


def test_a_death_counts_only_for_what_was_alone() -> None:
    window = filled(3, 4)
    window.mark(4)
    window.note(3, RecordNote(2, 1, alone=True))
    window.note(4, RecordNote(5, 1, alone=False))
    assert taken_over(window.state()).notes == {
        3: RecordNote(2, 2),
        4: RecordNote(5, 1),
    }
    assert taken_over(window.left()).notes == {3: RecordNote(2, 1), 4: RecordNote(5, 1)}


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
    assert read(metadata, 5) == CommitMetadata()


numbers = st.integers(0, 2**40)
ranges = st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), max_size=900)
notes = st.dictionaries(
    st.integers(0, 10**7),
    st.builds(RecordNote, st.integers(1, 100), st.integers(0, 100), st.booleans()),
    max_size=400,
)


@settings(deadline=None, max_examples=50)
@given(numbers, numbers, ranges, notes, st.integers(200, LIMIT))
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
    text = written(base, told, limit)
    assert len(text) <= limit
    back = read(text, base)
    assert list(back.done) == done[: len(back.done)]
    assert back.notes.items() <= told.notes.items()
    if text:
        assert back.upto == told.upto
    else:
        assert (ahead, done, notes) == (0, [], {})
    whole = written(base, told, 10**6)
    if whole:
        assert read(whole, base) == told


@dataclasses.dataclass
class Life:
    """One owner of the partition after the other, and all that there is to know."""

    log: list[int]
    window: OffsetTracker = dataclasses.field(default_factory=OffsetTracker)
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
        wanted = self.window.see(offset)
        assert wanted == (offset not in self.done_by_commit), offset
        if wanted:
            assert self.window.suspected(offset) == (offset in self.suspects)
            self.buffer.append(offset)

    def hand_out(self, count: int) -> None:
        """As it goes: marked, committed, and only then handed out."""
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        if taken:
            self.window.mark(taken[-1])
            self.commit()
            self.in_flight |= set(taken)

    def settle(self, which: int) -> None:
        if self.in_flight:
            offset = sorted(self.in_flight)[which % len(self.in_flight)]
            assert self.window.settle(offset)
            self.in_flight.discard(offset)
            self.done.add(offset)

    def commit(self) -> None:
        if self.window.base < 0:
            return
        self.committed = self.window.state(10**6)
        assert all(o in self.done for o in self.log if o < self.committed.offset)
        self.done_by_commit = set(self.done)
        told = read(self.committed.metadata, self.committed.offset)
        self.marked_by_commit = {o for o in self.log if o < told.upto} - self.done
        assert self.in_flight <= self.marked_by_commit

    def hand_over(self, clean: bool) -> None:
        if clean and self.window.base >= 0:
            self.committed = self.window.left(10**6)
            self.done_by_commit = set(self.done)
            # Those that were suspects already, and nobody has looked at.
            self.marked_by_commit = self.suspects
        self.suspects = self.marked_by_commit - self.done_by_commit
        # What was done and not committed is done again.
        self.done = set(self.done_by_commit)
        self.window = OffsetTracker(*(self.committed or (None, "")))
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
