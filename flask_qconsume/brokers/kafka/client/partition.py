"""One partition of a topic while it is assigned to this consumer. No I/O.

An :class:`AssignedPartition` belongs to one assignment. If the group takes the
partition away and assigns it again, there is a new object, and the records of the old
object are stale.

gevent's thread and the native thread read all attributes. Attributes that are noted as
gevent's are written by gevent's thread only, all other ones by the native thread only.
"""

from __future__ import annotations

import typing as t
from collections import deque
from collections.abc import Callable

from .offsets import METADATA_LIMIT_BYTES
from .offsets import CommitState
from .offsets import OffsetTracker
from .offsets import RecordNote
from .offsets import decode_metadata

#: A partition is stuck, and no more of it is fetched, if for this many seconds none of
#: its records could be handed out, and at least this many are buffered.
STUCK_AFTER_SECONDS = 1.0
_STUCK_AT_RECORDS = 200

#: A topic and the number of a partition.
PartitionId = tuple[str, int]

#: Tells when a record may be handed out, in seconds since 1970.
Due = Callable[[t.Any], float]


class ReadyRecord(t.NamedTuple):
    """A record that a commit has noted as in flight, so that a handler may get it."""

    partition: AssignedPartition
    offset: int
    #: As the client gave it: a :class:`confluent_kafka.Message`.
    record: t.Any
    #: Whether it may have been in flight when a process died.
    redelivered: bool = False
    #: The number of this attempt, if it is known.
    attempt: int | None = None
    #: Number of processes that died while handling it alone, if it is known.
    deaths: int | None = None
    #: The span of the previous attempt in this process, if it was traced.
    previous: str | None = None

    @property
    def place(self) -> str:
        """Topic, partition and offset, which are the same at every delivery."""
        return f"{self.partition.topic}/{self.partition.number}/{self.offset}"


class AssignedPartition:
    """A partition and its fetched records, as long as it is assigned.

    :param offsets: Tracks which of its records are in flight or done.
    :param due: Returns when a record may be handed out; ``None`` means at once.
    :param suspects_alone: Whether suspects (records that were in flight when a process
        died) are handled one by one, without other records of the partition.
    """

    __slots__ = (
        "suspects_alone",
        "awaiting_commit",
        "blocked_count",
        "buffer",
        "buffered_bytes",
        "committed",
        "is_uncommitted",
        "due",
        "gone",
        "handed_count",
        "has_progressed",
        "idle_since",
        "is_stuck",
        "leaving",
        "metadata_limit",
        "number",
        "offsets",
        "on_trial",
        "paused",
        "settled_count",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        number: int,
        offsets: OffsetTracker,
        *,
        due: Due | None = None,
        suspects_alone: bool = False,
    ) -> None:
        self.topic = topic
        self.number = number
        self.offsets = offsets
        self.due = due
        self.suspects_alone = suspects_alone
        #: Fetched records that are not marked yet, and their size in bytes.
        self.buffer: deque[t.Any] = deque()
        self.buffered_bytes = 0
        #: Marked records; they are handed out once that is committed.
        self.awaiting_commit: list[ReadyRecord] = []
        self.committed: CommitState | None = None
        #: Whether something changed since the last commit.
        self.is_uncommitted = False
        #: Bytes of metadata that the broker accepts.
        self.metadata_limit = METADATA_LIMIT_BYTES
        #: Whether a suspect is being handled, alone.
        self.on_trial = False
        #: The group is about to take the partition away: no handler is started.
        self.leaving = False
        #: The group took the partition away: its records are stale.
        self.gone = False
        #: Whether the client has stopped fetching; ``None`` if that is not known: a
        #: partition that comes back may still be paused.
        self.paused: bool | None = None
        self.is_stuck = False
        #: Whether a record was marked since the last check, and since when none was.
        self.has_progressed = True
        self.idle_since = 0.0
        #: Number of records that were handed out and are settled.
        self.settled_count = 0
        #: gevent's: number of records that were handed out and not taken back.
        self.handed_count = 0
        #: gevent's: number of records that wait for an earlier one of the same key.
        self.blocked_count = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.topic}/{self.number}>"

    @property
    def in_hand(self) -> int:
        """Number of records that are handed out and not settled."""
        return self.handed_count - self.settled_count

    @property
    def unsettled(self) -> int:
        """Number of records that are chosen for handing out, and not done."""
        return len(self.offsets) - len(self.buffer)

    @property
    def would_count_death(self) -> bool:
        """True if a record is handled alone, so that a crash counts as its death."""
        return any(note.alone for note in self.offsets.notes.values())

    def has_committed(self, offset: int) -> bool:
        """Return whether a commit marks a record as done, or none can follow.

        For a partition that this consumer has lost, it sends no more commits.
        """
        committed = self.committed
        if self.gone or committed is None:
            return self.gone
        done = decode_metadata(committed.metadata, committed.offset).done
        return offset < committed.offset or any(a <= offset < b for a, b in done)

    def add_fetched(self, record: t.Any) -> None:
        if self.offsets.see(record.offset()):
            self.buffer.append(record)
            self.buffered_bytes += len(record)
        else:
            self.is_uncommitted = True

    def mark(self, room: int, now: float, *, may_try_suspect: bool = True) -> int:
        """Choose up to ``room`` records for handing out; return their number.

        :param may_try_suspect: Whether a suspect (a record that was in flight when a
            process died) may be marked, if suspects are handled alone.
        """
        if self.suspects_alone and not self._may_mark_next(may_try_suspect):
            return 0
        ready, buffer = self.awaiting_commit, self.buffer
        before = len(ready)
        while buffer and room > 0:
            record = buffer[0]
            if self.due is not None and self.due(record) > now:
                break
            buffer.popleft()
            self.buffered_bytes -= len(record)
            ready.append(self._ready_record(record.offset(), record))
            room -= 1
            if self.on_trial:
                break
        marked = len(ready) - before
        if marked:
            self.offsets.mark(ready[-1].offset)
            self.is_uncommitted = self.has_progressed = True
        return marked

    def update_stuck(self, now: float) -> None:
        """Set :attr:`is_stuck`: whether no buffered record can be handed out now."""
        if self.has_progressed:
            self.has_progressed, self.idle_since = False, now
        idle = now - self.idle_since
        if len(self.buffer) < _STUCK_AT_RECORDS // 2:
            self.is_stuck = False
        elif len(self.buffer) >= _STUCK_AT_RECORDS and idle > STUCK_AFTER_SECONDS:
            self.is_stuck = True

    def _may_mark_next(self, may_try_suspect: bool) -> bool:
        """Return whether the next record may be handed out after a commit."""
        buffer = self.buffer
        suspect = bool(buffer) and self.offsets.is_suspect(buffer[0].offset())
        if suspect and not may_try_suspect:
            return False
        if self.unsettled and (self.on_trial or suspect):
            return False
        self.on_trial = suspect
        return True

    def _ready_record(self, offset: int, record: t.Any) -> ReadyRecord:
        offsets = self.offsets
        if offset >= offsets.suspects_end and not offsets.notes:
            return ReadyRecord(self, offset, record)
        note = offsets.notes.get(offset)
        suspect = offsets.is_suspect(offset)
        if self.on_trial:
            record_note = note or RecordNote()
            offsets.annotate(offset, record_note._replace(alone=True))
        if note is None:
            return ReadyRecord(self, offset, record, suspect)
        return ReadyRecord(self, offset, record, suspect, note.attempt, note.deaths)
