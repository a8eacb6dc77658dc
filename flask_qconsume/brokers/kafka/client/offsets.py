"""What became of one partition's records while it is ours, and how that is committed.

Kafka keeps one offset for each partition and group, and a short text beside it. The
offset is that of the first record that is not done; the text tells what else somebody
must know who takes over: which records beyond it are done, up to where records have
been handed out, and how often some were tried. So what is done out of order is not
repeated, and what was being handled when a process died is known.

Pure: no I/O, no clock, no threads.
"""

from __future__ import annotations

import json
import typing as t
from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

#: Bytes of metadata that brokers take (``offset.metadata.max.bytes``), and some to
#: spare.
LIMIT = 4_000

#: What tells our metadata from anybody else's, and which form it has.
_OURS = "qconsume"
_FORM = 1

Range = tuple[int, int]


class RecordNote(t.NamedTuple):
    """What is known of a record that is not done."""

    attempt: int = 1
    #: How many processes died while they handled it apart from others.
    deaths: int = 0
    #: Whether it is being handled apart from others.
    alone: bool = False


class CommitState(t.NamedTuple):
    """What is committed for a partition."""

    offset: int
    metadata: str


class CommitMetadata(t.NamedTuple):
    """What a commit's metadata says beside its offset."""

    #: Records below this were handed out, if they are not done.
    upto: int = 0
    #: What is done, each from its first offset to the one behind its last.
    done: Sequence[Range] = ()
    notes: t.Mapping[int, RecordNote] = {}


class OffsetTracker:
    """The records of one partition, from the first that is not done on.

    Records are *seen* in the order of their offsets, then *marked* (handed out once
    that is committed), then *settled*, in any order.

    :param committed: The offset that the group has committed, if it has.
    :param metadata: What was committed with it.
    """

    def __init__(self, committed: int | None = None, metadata: str = "") -> None:
        #: The offset behind the last record seen; -1 where nothing is known.
        self.position = -1 if committed is None else committed
        found = (
            read(metadata, self.position) if self.position >= 0 else CommitMetadata()
        )
        self.notes: dict[int, RecordNote] = {
            offset: _died(note) for offset, note in found.notes.items()
        }
        #: Records below this may have been in flight when a process died.
        self.suspects_upto = found.upto
        self._inherited = deque(found.done)
        #: What is seen and not settled, in order; counted, so that gaps in the offsets
        #: can be told from what is done.
        self._open: dict[int, int] = {}
        self._count = 0
        self._marked = 0
        self._released: set[int] = set()
        #: The offset behind the furthest that is marked or done.
        self._furthest = 0

    def __len__(self) -> int:
        """How many records are seen and not settled."""
        return len(self._open)

    @property
    def base(self) -> int:
        """The offset of the first record that is not done; -1 where it is unknown."""
        return next(iter(self._open), self.position)

    def see(self, offset: int) -> bool:
        """Take notice of a record; whether it is to be handled (else it is done)."""
        self.position = offset + 1
        self._count += 1
        if self._inherited and self._was_done(offset):
            self._furthest = offset + 1
            return False
        self._open[offset] = self._count
        return True

    def mark(self, offset: int) -> None:
        """The record, and all before it, may be handed out once this is committed."""
        self._marked = offset + 1
        self._furthest = max(self._furthest, offset + 1)

    def settle(self, offset: int) -> bool:
        """The record is done; whether it was not before."""
        if self._open.pop(offset, None) is None:
            return False
        if offset >= self._furthest:
            self._furthest = offset + 1
        if self.notes:
            self.notes.pop(offset, None)
        return True

    def release(self, offset: int) -> None:
        """The record was given back by whom it was handed to, unstarted."""
        self._released.add(offset)

    def note(self, offset: int, note: RecordNote) -> None:
        """Remember something of a record that is not done."""
        if offset in self._open:
            self.notes[offset] = note

    def suspected(self, offset: int) -> bool:
        """Whether the record may have been in flight when a process died."""
        return offset < self.suspects_upto

    def state(self, limit: int = LIMIT) -> CommitState:
        """What to commit while records are in flight."""
        upto = max(self._in_flight(), self.suspects_upto)
        return CommitState(self.base, self._written(upto, self.notes, limit))

    def left(self, limit: int = LIMIT) -> CommitState:
        """What to commit when the partition is left, so that nothing is suspected."""
        calm = {o: note._replace(alone=False) for o, note in self.notes.items()}
        return CommitState(self.base, self._written(self.suspects_upto, calm, limit))

    def _was_done(self, offset: int) -> bool:
        while self._inherited and self._inherited[0][1] <= offset:
            self._inherited.popleft()
        return bool(self._inherited) and self._inherited[0][0] <= offset

    def _in_flight(self) -> int:
        """The offset behind the last record that is in somebody's hands."""
        if not self._released:
            return self._marked
        self._released.intersection_update(self._open)
        held = (o for o in self._open if o < self._marked and o not in self._released)
        return max(held, default=-1) + 1

    def _done(self) -> Iterator[Range]:
        """What is done beyond the base."""
        end, expected = self.base, 0
        for offset, number in self._open.items():
            if offset >= self._furthest:
                break
            if expected and number != expected:
                yield end, offset
            end, expected = offset + 1, number + 1
        if expected and end < self._furthest:
            yield end, self._furthest
        for start, stop in self._inherited:
            if stop > self.position:
                yield max(start, self.position), stop

    def _written(self, upto: int, notes: t.Mapping[int, RecordNote], limit: int) -> str:
        return written(
            self.base, CommitMetadata(upto, list(self._done()), notes), limit
        )


def written(base: int, what: CommitMetadata, limit: int = LIMIT) -> str:
    """Metadata for a commit of the offset ``base``; empty if there is nothing to say.

    What does not fit is left out, the furthest first: it is only handled once more.
    """
    head = f'{{"{_OURS}":{_FORM},"upto":{max(0, what.upto - base)}'
    room = limit - len(head) - len(',"notes":[],"done":[]}')
    found = sorted(what.notes.items())
    notes = _fitting((_of_note(base, *each) for each in found), room // 2)
    room -= sum(len(text) + 1 for text in notes)
    done = _fitting(_of_ranges(base, what.done), room)
    if what.upto <= base and not notes and not done:
        return ""
    tail = f',"notes":[{",".join(notes)}]' if notes else ""
    tail += f',"done":[{",".join(done)}]' if done else ""
    return head + tail + "}"


def read(metadata: str | None, base: int) -> CommitMetadata:
    """What metadata beside the offset ``base`` says; nothing if it is not ours."""
    try:
        found = json.loads(metadata or "")
        if found[_OURS] != _FORM:
            return CommitMetadata()
        return CommitMetadata(
            base + _natural(found["upto"]),
            list(_ranges(base, found.get("done", []))),
            {
                base + _natural(offset): RecordNote(
                    _natural(tries), _natural(deaths), alone
                )
                for offset, tries, deaths, alone in _notes(found.get("notes", []))
            },
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return CommitMetadata()


def _died(note: RecordNote) -> RecordNote:
    """A record that was handled apart from others when its process died."""
    return RecordNote(note.attempt, note.deaths + 1) if note.alone else note


def _fitting(texts: Iterable[str], room: int) -> list[str]:
    """As many as fit, commas included."""
    kept = []
    for text in texts:
        room -= len(text) + 1
        if room < 0:
            break
        kept.append(text)
    return kept


def _of_note(base: int, offset: int, note: RecordNote) -> str:
    return f"{offset - base},{note.attempt},{note.deaths},{int(note.alone)}"


def _of_ranges(base: int, ranges: Iterable[Range]) -> Iterator[str]:
    """Each as the distance from the end of the one before it, and its length."""
    end = base
    for start, stop in ranges:
        yield f"{start - end},{stop - start}"
        end = stop


def _ranges(base: int, numbers: Sequence[t.Any]) -> Iterator[Range]:
    end = base
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        start = end + _natural(gap)
        end = start + _natural(length)
        yield start, end


def _notes(numbers: Sequence[t.Any]) -> Iterator[tuple[t.Any, t.Any, t.Any, bool]]:
    for at in range(0, len(numbers), 4):
        offset, attempt, deaths, alone = numbers[at : at + 4]
        yield offset, attempt, deaths, bool(alone)


def _natural(value: t.Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return int(value)
