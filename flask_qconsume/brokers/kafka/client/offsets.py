"""In-flight and settled offsets of one partition, and their encoding in commits.

Kafka keeps one offset per partition and group, and a short text (the metadata) with it.
The offset is that of the first record that is not done. The metadata tells the next
owner of the partition which later records are done, up to which offset records were
handed out, and how often some of them were tried. So records that are done out of order
are not repeated, and the records that were being handled when a process died are known.

No I/O, no clock, no threads.
"""

from __future__ import annotations

import json
import typing as t
from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

#: Bytes of metadata in one commit. Brokers take 4,096 (``offset.metadata.max.bytes``).
METADATA_LIMIT_BYTES = 4_000

#: The key that marks metadata as written by this package, and the version of its form.
_MARKER = "qconsume"
_VERSION = 1

#: The first offset, and the offset behind the last one.
Range = tuple[int, int]


class RecordNote(t.NamedTuple):
    """A record's number of attempts, and the number of deaths that it has caused."""

    attempt: int = 1
    #: Number of processes that died while they handled this record alone.
    deaths: int = 0
    #: Whether this record is being handled, and no other one beside it.
    alone: bool = False


class CommitState(t.NamedTuple):
    """The offset and the metadata of a commit."""

    offset: int
    metadata: str


class CommitMetadata(t.NamedTuple):
    """The decoded metadata of a commit."""

    #: Records below this offset were handed out, unless they are done.
    upto: int = 0
    #: Ranges of records that are done, in ascending order.
    done: Sequence[Range] = ()
    notes: t.Mapping[int, RecordNote] = {}


class OffsetTracker:
    """Tracks which records of a partition are in flight, and which are done.

    Records are *seen* in the order of their offsets, then *marked* (the next commit
    notes them as in flight, and after that they are handed out), then *settled*, in any
    order.

    :param committed: The offset that the group has committed, if any.
    :param metadata: The metadata of that commit.
    """

    def __init__(self, committed: int | None = None, metadata: str = "") -> None:
        #: The offset behind the last record seen; -1 if it is unknown.
        self.position = -1 if committed is None else committed
        decoded = CommitMetadata()
        if self.position >= 0:
            decoded = decode_metadata(metadata, self.position)
        self.notes: dict[int, RecordNote] = {
            offset: _with_death(note) for offset, note in decoded.notes.items()
        }
        #: Records below this offset may have been in flight when a process died.
        self.suspects_end = decoded.upto
        self._done_before = deque(decoded.done)
        #: Records that were seen and are not settled, with ordinal numbers. The numbers
        #: tell gaps in Kafka's offsets from records that are done.
        self._unsettled: dict[int, int] = {}
        self._seen_count = 0
        self._marked_end = 0
        self._released: set[int] = set()
        #: The offset behind the furthest record that is marked or done.
        self._furthest_end = 0

    def __len__(self) -> int:
        return len(self._unsettled)

    @property
    def base(self) -> int:
        """The offset of the first record that is not done; -1 if unknown."""
        return next(iter(self._unsettled), self.position)

    def see(self, offset: int) -> bool:
        """Add a fetched record; return false if it is done already."""
        self.position = offset + 1
        self._seen_count += 1
        if self._done_before and self._was_done(offset):
            self._furthest_end = offset + 1
            return False
        self._unsettled[offset] = self._seen_count
        return True

    def mark(self, offset: int) -> None:
        """Make the next commit note all records up to ``offset`` as in flight."""
        self._marked_end = offset + 1
        self._furthest_end = max(self._furthest_end, offset + 1)

    def settle(self, offset: int) -> bool:
        """Mark a record as done; return false if it is marked already."""
        if self._unsettled.pop(offset, None) is None:
            return False
        if offset >= self._furthest_end:
            self._furthest_end = offset + 1
        if self.notes:
            self.notes.pop(offset, None)
        return True

    def release(self, offset: int) -> None:
        """Mark a record as not in flight: no handler has started it."""
        self._released.add(offset)

    def annotate(self, offset: int, note: RecordNote) -> None:
        """Store a record's number of attempts and of deaths."""
        if offset in self._unsettled:
            self.notes[offset] = note

    def is_suspect(self, offset: int) -> bool:
        """Return whether a record may have been in flight when a process died."""
        return offset < self.suspects_end

    def commit_state(self, limit: int = METADATA_LIMIT_BYTES) -> CommitState:
        """Return what to commit now, while records may be in flight."""
        upto = max(self._in_flight_end(), self.suspects_end)
        return CommitState(self.base, self._encode(upto, self.notes, limit))

    def final_state(self, limit: int = METADATA_LIMIT_BYTES) -> CommitState:
        """Return what to commit last, when no record is in flight any more."""
        calm = {o: note._replace(alone=False) for o, note in self.notes.items()}
        return CommitState(self.base, self._encode(self.suspects_end, calm, limit))

    def _was_done(self, offset: int) -> bool:
        while self._done_before and self._done_before[0][1] <= offset:
            self._done_before.popleft()
        return bool(self._done_before) and self._done_before[0][0] <= offset

    def _in_flight_end(self) -> int:
        """Return the offset behind the last record in flight; 0 without any."""
        if not self._released:
            return self._marked_end
        self._released.intersection_update(self._unsettled)
        held = (
            offset
            for offset in self._unsettled
            if offset < self._marked_end and offset not in self._released
        )
        return max(held, default=-1) + 1

    def _done_ranges(self) -> Iterator[Range]:
        """Yield the ranges of offsets that are done although an earlier one is not."""
        end, expected = self.base, 0
        for offset, number in self._unsettled.items():
            if offset >= self._furthest_end:
                break
            if expected and number != expected:
                yield end, offset
            end, expected = offset + 1, number + 1
        if expected and end < self._furthest_end:
            yield end, self._furthest_end
        for start, stop in self._done_before:
            if stop > self.position:
                yield max(start, self.position), stop

    def _encode(self, upto: int, notes: t.Mapping[int, RecordNote], limit: int) -> str:
        metadata = CommitMetadata(upto, list(self._done_ranges()), notes)
        return encode_metadata(self.base, metadata, limit)


def encode_metadata(
    base: int, metadata: CommitMetadata, limit: int = METADATA_LIMIT_BYTES
) -> str:
    """Encode the metadata of a commit as a short text.

    The text is empty if no record behind the offset ``base`` is in flight or done. If
    the text exceeds ``limit`` bytes, the entries with the highest offsets are left out;
    their records are handled again if another consumer gets the partition.
    """
    head = f'{{"{_MARKER}":{_VERSION},"upto":{max(0, metadata.upto - base)}'
    room = limit - len(head) - len(',"notes":[],"done":[]}')
    offset_notes = sorted(metadata.notes.items())
    notes = _take_fitting(
        (_encode_note(base, *offset_note) for offset_note in offset_notes), room // 2
    )
    room -= sum(len(text) + 1 for text in notes)
    done = _take_fitting(_encode_ranges(base, metadata.done), room)
    if metadata.upto <= base and not notes and not done:
        return ""
    tail = f',"notes":[{",".join(notes)}]' if notes else ""
    tail += f',"done":[{",".join(done)}]' if done else ""
    return head + tail + "}"


def decode_metadata(metadata: str | None, base: int) -> CommitMetadata:
    """Decode the metadata of a commit; nothing for a text of another program."""
    try:
        document = json.loads(metadata or "")
        if document[_MARKER] != _VERSION:
            return CommitMetadata()
        return CommitMetadata(
            base + _natural(document["upto"]),
            list(_decode_ranges(base, document.get("done", []))),
            {
                base + _natural(offset): RecordNote(
                    _natural(attempt), _natural(deaths), alone
                )
                for offset, attempt, deaths, alone in _decode_notes(
                    document.get("notes", [])
                )
            },
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return CommitMetadata()


def _with_death(note: RecordNote) -> RecordNote:
    """Return the note with one more death, if the record was handled alone."""
    return RecordNote(note.attempt, note.deaths + 1) if note.alone else note


def _take_fitting(texts: Iterable[str], room: int) -> list[str]:
    """Return the first texts that fit into ``room`` characters, with commas."""
    fitting_texts = []
    for text in texts:
        room -= len(text) + 1
        if room < 0:
            break
        fitting_texts.append(text)
    return fitting_texts


def _encode_note(base: int, offset: int, note: RecordNote) -> str:
    return f"{offset - base},{note.attempt},{note.deaths},{int(note.alone)}"


def _encode_ranges(base: int, ranges: Iterable[Range]) -> Iterator[str]:
    """Encode ranges of offsets as texts: the gap before a range, and its length."""
    end = base
    for start, stop in ranges:
        yield f"{start - end},{stop - start}"
        end = stop


def _decode_ranges(base: int, numbers: Sequence[t.Any]) -> Iterator[Range]:
    end = base
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        start = end + _natural(gap)
        end = start + _natural(length)
        yield start, end


def _decode_notes(
    numbers: Sequence[t.Any],
) -> Iterator[tuple[t.Any, t.Any, t.Any, bool]]:
    for at in range(0, len(numbers), 4):
        offset, attempt, deaths, alone = numbers[at : at + 4]
        yield offset, attempt, deaths, bool(alone)


def _natural(value: t.Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return int(value)
