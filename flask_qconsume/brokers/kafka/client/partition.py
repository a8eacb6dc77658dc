"""One partition of a topic, as long as it is ours. No I/O.

A slot belongs to one assignment: if the partition is taken away and comes back, that is
another slot, and whatever belonged to the old one is stale.

Two threads have to do with it. What is noted as the hub's is written by the hub only,
all else by the native thread; each may read what the other one writes.
"""

from __future__ import annotations

import typing as t
from collections import deque
from collections.abc import Callable

from .offsets import LIMIT
from .offsets import CommitState
from .offsets import OffsetTracker
from .offsets import RecordNote
from .offsets import read

#: A slot of which nothing could be handed out for so many seconds is stuck, if so many
#: records wait in it; then no more are fetched.
STUCK = 1.0
_ENOUGH = 200

Due = Callable[[t.Any], float]


class ReadyRecord(t.NamedTuple):
    """A record that may be handed out: that it may is committed."""

    slot: AssignedPartition
    offset: int
    #: As the client gave it: a :class:`confluent_kafka.Message`.
    record: t.Any
    #: Whether it may have been in flight when a process died.
    redelivered: bool = False
    #: How often it is tried by now, if that is known.
    attempt: int | None = None
    #: How many processes died while they handled it apart from others, if known.
    deaths: int | None = None

    @property
    def place(self) -> str:
        """Where its record lies, for ever."""
        return f"{self.slot.topic}/{self.slot.partition}/{self.offset}"


class AssignedPartition:
    """A partition, what was fetched of it, and what may be handed out.

    :param window: What is known of it.
    :param due: When a record may be handed out, in seconds since 1970, if some are
        held back.
    :param apart: Whether a suspect is handed out only while nothing else is.
    """

    __slots__ = (
        "apart",
        "blocked",
        "buffer",
        "committed",
        "dirty",
        "due",
        "gone",
        "handed",
        "leaving",
        "limit",
        "moved",
        "partition",
        "paused",
        "settled",
        "size",
        "still_since",
        "stuck",
        "topic",
        "trial",
        "waiting",
        "window",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        window: OffsetTracker,
        *,
        due: Due | None = None,
        apart: bool = False,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.window = window
        self.due = due
        self.apart = apart
        #: Fetched and not marked yet, and how many bytes that are.
        self.buffer: deque[t.Any] = deque()
        self.size = 0
        #: Marked; may be handed out as soon as that is committed.
        self.waiting: list[ReadyRecord] = []
        self.committed: CommitState | None = None
        #: Whether something has changed that is not committed.
        self.dirty = False
        #: Bytes of metadata that the broker takes.
        self.limit = LIMIT
        #: Whether a suspect is being handled, so that nothing else may be.
        self.trial = False
        #: It is about to be taken away: nothing new is begun.
        self.leaving = False
        #: It was taken away: all that belonged to it is stale.
        self.gone = False
        #: Whether the client fetches no more of it;
        #: ``None``: it has just come, and may be paused from when it was lost.
        self.paused: bool | None = None
        self.stuck = False
        #: Whether something of it was marked since the last look, and since when not.
        self.moved = True
        self.still_since = 0.0
        #: How many of the arrivals that were handed out are settled.
        self.settled = 0
        #: The hub's: how many arrivals it has handed out, and not taken back.
        self.handed = 0
        #: The hub's: how many arrivals wait for another one of their order.
        self.blocked = 0

    def __repr__(self) -> str:
        return f"<AssignedPartition {self.topic}/{self.partition}>"

    @property
    def in_hands(self) -> int:
        """How many arrivals are handed out and not settled."""
        return self.handed - self.settled

    @property
    def open(self) -> int:
        """How many records are marked and not settled."""
        return len(self.window) - len(self.buffer)

    @property
    def tries(self) -> bool:
        """Whether a death of the process now would count for one of its records."""
        return any(note.alone for note in self.window.notes.values())

    def has_committed(self, offset: int) -> bool:
        """Whether it is committed that a record is done; or never will be by us."""
        committed = self.committed
        if self.gone or committed is None:
            return self.gone
        done = read(committed.metadata, committed.offset).done
        return offset < committed.offset or any(a <= offset < b for a, b in done)

    def fetched(self, record: t.Any) -> None:
        """A record came; what is done already is passed over."""
        if self.window.see(record.offset()):
            self.buffer.append(record)
            self.size += len(record)
        else:
            self.dirty = True

    def mark(self, room: int, now: float, *, trial: bool = True) -> int:
        """Mark up to ``room`` records to be handed out; how many there were.

        :param trial: Whether a suspect may be, where they are handled apart.
        """
        if self.apart and not self._may_go_on(trial):
            return 0
        waiting, window, buffer = len(self.waiting), self.window, self.buffer
        while buffer and room > 0:
            record = buffer[0]
            if self.due is not None and self.due(record) > now:
                break
            buffer.popleft()
            self.size -= len(record)
            self.waiting.append(self._arrival(record.offset(), record))
            room -= 1
            if self.trial:
                break
        marked = len(self.waiting) - waiting
        if marked:
            window.mark(self.waiting[-1].offset)
            self.dirty = self.moved = True
        return marked

    def look(self, now: float) -> None:
        """Notice whether it is stuck."""
        if self.moved:
            self.moved, self.still_since = False, now
        if len(self.buffer) < _ENOUGH // 2:
            self.stuck = False
        elif len(self.buffer) >= _ENOUGH and now - self.still_since > STUCK:
            self.stuck = True

    def _may_go_on(self, trial: bool) -> bool:
        """Whether the next record may be handed out beside those that are."""
        suspect = self._is_suspect_next()
        if suspect and not trial:
            return False
        if self.open and (self.trial or suspect):
            return False
        self.trial = suspect
        return True

    def _is_suspect_next(self) -> bool:
        return bool(self.buffer) and self.window.suspected(self.buffer[0].offset())

    def _arrival(self, offset: int, record: t.Any) -> ReadyRecord:
        window = self.window
        if offset >= window.suspects_upto and not window.notes:
            return ReadyRecord(self, offset, record)
        note = window.notes.get(offset)
        suspected = window.suspected(offset)
        if self.trial:
            known = note or RecordNote()
            window.note(offset, known._replace(alone=True))
        if note is None:
            return ReadyRecord(self, offset, record, suspected)
        return ReadyRecord(self, offset, record, suspected, note.attempt, note.deaths)
