"""A member of a consumer group: what the native thread does that owns the client.

It joins, fetches, commits, pauses, and leaves. With the hub it shares deques, flags and
a notifier, and no locks; so it logs nothing itself. Before a record is handed out, that
it will be is committed, so that it is known if the process dies (:mod:`.kafka_window`);
what is settled goes into the same commits, of which one is under way at a time.
"""

from __future__ import annotations

import contextlib
import logging
import time
import typing as t
from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from confluent_kafka import Consumer
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition

from ....errors import BrokerError
from ....first_use import delay_forks
from ....native_threads import ThreadNotifier
from ....native_threads import get_unpatched
from ....text import pluralize
from .calls import FIRST_CONNECTIONS
from .errors import ends_client
from .errors import translate_error
from .offsets import CommitState
from .offsets import OffsetTracker
from .offsets import RecordNote
from .outage import Outage
from .partition import AssignedPartition
from .partition import Due
from .partition import ReadyRecord
from .positions import SETTINGS
from .positions import Positions
from .topic_refresh import TopicRefresh

#: Seconds between two commits, and after one that failed.
_PACE = 0.02
_PAUSE = 0.1
#: Seconds that the client waits for records: with something in hand, since what is
#: settled meanwhile waits for its end; and else, at first and at the most. A stop waits
#: for that, too; what comes ends it.
_BUSY = 0.005
_IDLE = 0.05
_REST = 1.0
#: Seconds of nothing to do after which partitions are not looked at in each round.
_CALM = 1.0
#: Seconds that the broker may take to answer.
ANSWER = 5.0
_TRY = 0.5
#: Seconds that a member which leaves tries to commit before it does.
_PARTING = 3.5
#: How many records are marked at once at the most, and how many are fetched ahead.
_MOST = 5_000
_AHEAD = 1_000
#: How many records are fetched in one go.
_BATCH = 1_000
#: Bytes that are fetched ahead; and how many of them may lie in slots that are stuck.
_BYTES = 16 * 1024 * 1024
_BYTES_STUCK = 4 * _BYTES
#: Seconds for which it only fetches slowly when that much is there. Then it pauses,
#: which costs what the client has fetched, and half a second to go on.
_FULL = 1.0
#: Seconds between two looks at which slots are stuck or full.
_LOOK = 0.05

#: What a commit fails by while partitions move: it is tried again, or they are gone.
_MOVING = {
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError._NO_OFFSET,
    KafkaError._STATE,
    KafkaError._WAIT_COORD,
}

Place = tuple[str, int]


@dataclass(frozen=True)
class ConsumerTerms:
    """How a member reads."""

    #: How many unsettled arrivals the hub wants at once.
    room: int
    #: Whether more than that may be marked, so that fast handlers never wait.
    ahead: bool = True
    #: ``"none"``, ``"key"`` or ``"partition"``.
    ordering: str = "none"
    #: Which topics hold records back, and until when (seconds since 1970) they do.
    delayed: Callable[[str], bool] = lambda topic: False
    due: Due = lambda record: 0.0
    #: Seconds that a partition which is taken away waits for what is being handled.
    grace: float = 10.0


class ConsumerThread:
    """Runs in the native thread; what stands in the first part is shared with the hub.

    :param config: librdkafka's settings, the group's id among them.
    :param topics: Topics, and patterns that begin with ``^``.
    """

    def __init__(
        self,
        config: Mapping[str, t.Any],
        topics: list[str],
        terms: ConsumerTerms,
        notifier: ThreadNotifier,
    ) -> None:
        #: From the hub: what is done with, given back unstarted, to be remembered.
        self.settled: deque[Sequence[ReadyRecord]] = deque()
        self.released: deque[Sequence[ReadyRecord]] = deque()
        self.noted: deque[tuple[ReadyRecord, RecordNote]] = deque()
        self.quiet = False
        self.stopping = False
        #: For the hub: what it may hand out, what it must forget, what is to be logged.
        self.arrived: deque[list[ReadyRecord]] = deque()
        self.gone: deque[AssignedPartition] = deque()
        self.told: deque[tuple[int, str]] = deque(maxlen=1_000)
        self.opened = False
        #: Whether the group has told which partitions are its own; perhaps none.
        self.joined = False
        #: Whether a topic that it reads is not there; the hub takes that back.
        self.misses = False
        #: Whether it waits until the group lets it leave.
        self.leaving = False
        self.error: BrokerError | None = None
        self.absence = Outage(float(config.get("session.timeout.ms", 45_000)) / 1_000)
        self.search = TopicRefresh(lambda timeout: self._topics_seen(timeout).topics)
        #: When it was seen alive.
        self.beaten = time.monotonic()
        #: How many settlements came for slots that were gone.
        self.stale = 0

        self._config = config
        self._positions = Positions(
            str(config.get("partition.assignment.strategy", "")), self.tell
        )
        self._topics = topics
        self._terms = terms
        self._notifier = notifier
        self._slots: dict[Place, AssignedPartition] = {}
        self._commits = OffsetCommits(terms, self)
        #: How many more the hub wants, for those that it cannot settle now.
        self.exceeded = 0
        self._flow = FlowControl()
        self._turn = 0
        #: Seconds for which there has been nothing to do.
        self._calm = 0.0
        self._known: set[str] = set()

    @property
    def buffered(self) -> int:
        """How many records are fetched and not marked."""
        return sum(len(slot.buffer) for slot in list(self._slots.values()))

    @property
    def waiting(self) -> list[ReadyRecord]:
        """What is marked, and not handed over, since no commit of it was answered."""
        marked = [slot.waiting for slot in list(self._slots.values())]
        return [*chain(*marked), *self._commits.unanswered]

    def run(self) -> None:
        """Be a member until :attr:`stopping`, or an error."""
        delay_forks(FIRST_CONNECTIONS)
        try:
            self._consumer = Consumer(self._configured())
        except Exception as error:
            self.fail(error)
            return
        try:
            self._open()
            while not self.stopping and self.error is None:
                self._round()
            self._part()
            self._leave()
        except Exception as error:
            self.fail(error)
        finally:
            # It may take long where nobody answers: the hub knows already.
            with contextlib.suppress(Exception):
                self._consumer.close()

    def fail(self, error: t.Any) -> None:
        """End, and let the hub know why; the first reason counts."""
        if self.error is None:
            known = isinstance(error, BrokerError)
            self.error = error if known else translate_error(error)
            self._notifier.notify()

    def tell(self, level: int, text: str) -> None:
        """Have the hub log something."""
        self.told.append((level, text))
        self._notifier.notify()

    def hand_over(self, slot: AssignedPartition, arrivals: list[ReadyRecord]) -> None:
        """Give arrivals to the hub: that it has them is committed."""
        if self.quiet or slot.leaving:
            for arrival in arrivals:
                slot.window.release(arrival.offset)
            slot.dirty = True
        elif arrivals:
            self.arrived.append(arrivals)
            self._notifier.notify()

    # -- joining and leaving ----------------------------------------------------------

    def _configured(self) -> dict[str, t.Any]:
        return {
            **self._config,
            **SETTINGS,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "logger": _Lines(self.told),
            "on_commit": self._committed,
            "error_cb": self._trouble,
        }

    def _open(self) -> None:
        self._connect()
        self._consumer.subscribe(
            self._topics,
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )
        self.opened = True
        self._notifier.notify()

    def _connect(self) -> None:
        """Wait for the broker's first answer, or for a reason why there is none."""
        deadline = time.monotonic() + ANSWER
        while True:
            try:
                self._consumer.list_topics(timeout=_TRY)
                return
            except KafkaException as error:
                self._consumer.poll(0)  # Tells more: a refusal, nobody there at all.
                over = self.absence.begun or time.monotonic() > deadline
                if self.error is not None:
                    raise self.error from error
                if over or self.stopping:
                    raise

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.joined = True
        self._notifier.notify()
        if self.stopping or not partitions:
            return  # At the end there is nothing to begin with.
        committed = consumer.committed(partitions, timeout=2 * ANSWER)
        for found in committed:
            if found.error is not None:
                raise KafkaException(found.error)
            offset = found.offset if found.offset >= 0 else None
            self._add(found.topic, found.partition, offset, found.metadata or "")
        self._positions.begin(consumer, committed)

    def _add(
        self, topic: str, partition: int, committed: int | None, metadata: str
    ) -> AssignedPartition:
        self._calm = 0.0
        slot = self._slots[topic, partition] = AssignedPartition(
            topic,
            partition,
            OffsetTracker(committed, metadata),
            due=self._terms.due if self._terms.delayed(topic) else None,
            apart=self._terms.ordering != "none",
        )
        return slot

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(each.topic, each.partition) for each in partitions]
        slots = [self._slots[place] for place in places if place in self._slots]
        for slot in slots:
            slot.leaving = True
        self._notifier.notify()
        self._await_handlers(slots)
        if self.error is None:
            self._commits.leave(consumer, slots)
        self._drop(places)

    def _part(self) -> None:
        """Commit what others are to find, while the group is at rest.

        While it is not, commits wait until it is, and are refused then. So would be one
        that comes with the end, and who leaves in the midst of it is missed by the
        others until they take it for dead.
        """
        self.quiet = True
        deadline = time.monotonic() + _PARTING
        while self.error is None and time.monotonic() < deadline:
            self._obey()
            if self._commits.part(self._consumer, list(self._slots.values())):
                break
            record = self._consumer.poll(_BUSY)
            if record is not None:
                self._fetched(record)

    def _leave(self) -> None:
        """Leave the group, once the join or rebalance under way is over.

        The client's own end would not: without a partition it sends nothing, and behind
        a join that waits for other members nothing is read. Then the group would wait
        for the session timeout. https://github.com/confluentinc/librdkafka/pull/3375
        """
        if self._commits.pending:
            return  # The broker has not answered for long.
        self.leaving = True
        deadline = time.monotonic() + self._terms.grace + _PARTING
        self._consumer.unsubscribe()
        while self._consumer.memberid() and time.monotonic() < deadline:
            if self.error is not None or self.absence.begun:
                break
            self._consumer.poll(_BUSY)
        self.leaving = False

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop([(each.topic, each.partition) for each in partitions])
        self.tell(
            logging.WARNING,
            f"Lost {pluralize(len(partitions), 'partition')}: another member may handle"
            " what is being handled here. This process was not heard of for too long"
            " ('session.timeout.ms', 'max.poll.interval.ms').",
        )

    def _drop(self, places: Sequence[Place]) -> None:
        slots = [self._slots.pop(each) for each in places if each in self._slots]
        for slot in slots:
            slot.leaving = slot.gone = True
            self.gone.append(slot)
        self._notifier.notify()

    def _await_handlers(self, slots: list[AssignedPartition]) -> None:
        """Let the hub finish what it has begun, for a while; the rest goes on."""
        deadline = time.monotonic() + self._terms.grace
        self._commits.recall()
        self._obey()
        while any(slot.in_hands > 0 for slot in slots):
            if self.stopping or self.error or time.monotonic() > deadline:
                break
            self.beaten = time.monotonic()
            others = [slot for slot in self._slots.values() if not slot.leaving]
            if not self.quiet:
                self._mark(others)
            # In a callback of the client's no other one comes: so it waits for answers.
            self._commits.send(self._consumer, others, wait=True)
            get_unpatched("time", "sleep")(_BUSY)
            self._obey()

    # -- going on ---------------------------------------------------------------------

    def _round(self) -> None:
        self.beaten = time.monotonic()
        slots = list(self._slots.values())
        if self.settled or self.noted or self.released:
            self._calm = 0.0
        if self._calm < _CALM:
            self._see_to(slots)
        self._fetch(slots)
        for place in self._positions.look(self._consumer, self._slots):
            self._begin_again(place)
        if self.absence.look(self._topics_seen):
            self.tell(logging.WARNING, _of_absence(self.absence))
        if not self.absence.begun:
            self.search.look()

    def _topics_seen(self, timeout: float) -> t.Any:
        return self._consumer.list_topics(timeout=timeout)

    def _see_to(self, slots: list[AssignedPartition]) -> None:
        self._obey()
        if not self.quiet:
            self._mark(slots)
        self._commits.send(self._consumer, slots)
        ahead = _AHEAD + self._commits.room
        self._flow.look(self._consumer, slots, ahead, self.quiet)

    def _obey(self) -> None:
        while self.settled:
            for arrival in self.settled.popleft():
                slot = arrival.slot
                if slot.gone:
                    self.stale += 1
                elif slot.window.settle(arrival.offset):
                    slot.settled += 1
                    slot.dirty = True
                    self._commits.settled += 1
        while self.noted:
            arrival, note = self.noted.popleft()
            arrival.slot.window.note(arrival.offset, note)
            arrival.slot.dirty = True
        while self.released:
            for arrival in self.released.popleft():
                arrival.slot.window.release(arrival.offset)
                arrival.slot.dirty = True

    def _mark(self, slots: list[AssignedPartition]) -> None:
        """Choose what may be handed out next, from all slots in turn."""
        room = self._commits.room + self.exceeded
        free = room - sum(slot.open - slot.blocked for slot in slots)
        ready = [slot for slot in slots if slot.buffer and not slot.leaving]
        if not ready or free <= 0:
            return
        self._turn = (self._turn + 1) % len(ready)
        share = max(1, free // len(ready))
        now = time.time()
        for slot in ready[self._turn :] + ready[: self._turn]:
            lane = self._commits.room_of(slot)
            # One at a time in the whole process: all of them would be blamed.
            trial = not slot.apart or not self._tries()
            free -= slot.mark(min(share, free, lane), now, trial=trial)

    def _tries(self) -> bool:
        return any(slot.tries for slot in list(self._slots.values()))

    def _fetch(self, slots: list[AssignedPartition]) -> None:
        room = self._flow.room
        if room <= 0:
            # It must go on asking, for the client's callbacks.
            get_unpatched("time", "sleep")(_BUSY)
        wait = self._patience(slots)
        first = self._consumer.poll(wait if room > 0 else 0)
        if first is None:
            self._calm += wait
            return
        self._calm = 0.0
        self._fetched(first)
        if room > 1:
            for record in self._consumer.consume(min(room - 1, _BATCH), 0):
                self._fetched(record)

    def _patience(self, slots: list[AssignedPartition]) -> float:
        """Seconds to wait for a record: a tenth of how long it has been at rest."""
        if self._calm < _CALM:
            if self._commits.pending or any(slot.open for slot in slots):
                self._calm = 0.0
                return _BUSY
            # What is held back may become due; what has changed is to be committed.
            if any(slot.buffer or slot.dirty for slot in slots):
                self._calm = 0.0
                return _IDLE
        return min(_REST, max(_IDLE, self._calm / 10))

    def _fetched(self, record: t.Any) -> None:
        error = record.error()
        place = record.topic(), record.partition()
        if error is not None:
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._positions.lose(place)
            else:
                self._trouble(error)
            return
        slot = self._slots.get(place)
        if slot is None:
            return
        if record.offset() < slot.window.position:
            # The topic was made anew, or lost its end: those offsets are others now.
            slot = self._begin_again(place)
        slot.fetched(record)

    def _begin_again(self, place: Place) -> AssignedPartition:
        """Know nothing of a partition any more."""
        self._drop([place])
        return self._add(*place, None, "")

    # -- what goes wrong --------------------------------------------------------------

    def _committed(
        self, error: KafkaError | None, partitions: list[TopicPartition]
    ) -> None:
        for failed in self._commits.answered(error, partitions):
            self._trouble(failed)

    def _trouble(self, error: KafkaError) -> None:
        if ends_client(error):
            self.fail(error)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.absence.doubt()
        else:
            self._tell_once(error)

    def _tell_once(self, error: KafkaError) -> None:
        unknown = error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        self.misses = self.misses or unknown
        what = error.str() if unknown else error.name()
        if what not in self._known and len(self._known) < 100:
            self._known.add(what)
            self.tell(logging.WARNING, _described(error))


class OffsetCommits:
    """What is committed, one commit at a time, and what that lets the hub have."""

    def __init__(self, terms: ConsumerTerms, member: ConsumerThread) -> None:
        #: How many arrivals were settled since the last commit.
        self.settled = 0
        #: How many records may be marked and unsettled.
        self.room = terms.room
        self._terms = terms
        self._member = member
        self._pending: dict[
            Place, tuple[AssignedPartition, CommitState, list[ReadyRecord]]
        ] = {}
        self._next = 0.0

    @property
    def pending(self) -> bool:
        """Whether a commit is not answered yet."""
        return bool(self._pending)

    @property
    def unanswered(self) -> list[ReadyRecord]:
        """What may be handed out once the commit that is under way is answered."""
        return list(chain(*(arrivals for _, _, arrivals in self._pending.values())))

    def room_of(self, slot: AssignedPartition) -> int:
        """How many more records of one slot may be marked, however many are blocked."""
        if self._terms.ordering == "none":
            return _MOST
        most = _MOST // 5 if self._terms.ordering == "key" else self.room
        return max(0, most - slot.open)

    def send(
        self, consumer: Consumer, slots: list[AssignedPartition], *, wait: bool = False
    ) -> None:
        """Commit what has changed, if it is time to; and ``wait`` for the answer."""
        now = time.monotonic()
        if self._pending or (now < self._next and not _is_starving(slots)):
            return
        self._next = now + _PACE
        if self._terms.ahead:
            self._adapt()
        for slot in slots:
            self._add(slot)
        if self._pending:
            self._ask(consumer, wait)

    def _ask(self, consumer: Consumer, wait: bool) -> None:
        offsets = [_offset(slot, state) for slot, state, _ in self._pending.values()]
        try:
            if not wait:
                consumer.commit(offsets=offsets, asynchronous=True)
                return
            done = consumer.commit(offsets=offsets, asynchronous=False) or []
            failures = self.answered(None, done)
        except KafkaException as error:
            failures = self.answered(error.args[0], [])
        for failed in failures:
            self._member.tell(logging.WARNING, _described(failed))

    def recall(self) -> None:
        """Take no notice of the answer that is awaited: ask again, for more."""
        for slot, _, arrivals in self._pending.values():
            slot.waiting[:0] = arrivals
            slot.dirty = True
        self._pending = {}

    def answered(
        self, error: KafkaError | None, partitions: list[TopicPartition]
    ) -> list[KafkaError]:
        """What the broker says; returns what is neither fine nor to be expected."""
        if partitions and not any(self._is_awaited(each) for each in partitions):
            return []  # It was recalled.
        pending, self._pending = self._pending, {}
        errors = {(each.topic, each.partition): each.error for each in partitions}
        failures = {}
        for place, (slot, state, arrivals) in pending.items():
            failed = errors.get(place) or error
            if failed is None:
                slot.committed = state
                self._member.hand_over(slot, arrivals)
                continue
            slot.waiting[:0] = arrivals
            slot.dirty = True
            self._next = time.monotonic() + _PAUSE
            if failed.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
                slot.limit //= 2
            elif failed.code() not in _MOVING:
                failures[failed.code()] = failed
        return list(failures.values())

    def part(self, consumer: Consumer, slots: list[AssignedPartition]) -> bool:
        """Commit what others are to find; whether that is done already."""
        if self._pending or time.monotonic() < self._next:
            return False
        for slot in slots:
            state = slot.window.left(slot.limit)
            if state.offset >= 0 and state != slot.committed:
                self._pending[slot.topic, slot.partition] = slot, state, []
        if self._pending:
            self._ask(consumer, wait=False)
            return False
        return True

    def leave(self, consumer: Consumer, slots: list[AssignedPartition]) -> None:
        """Commit, and wait for that, what somebody else is to find."""
        left = [(slot, slot.window.left(slot.limit)) for slot in slots]
        offsets = [
            _offset(slot, state)
            for slot, state in left
            if state.offset >= 0 and state != slot.committed
        ]
        if not offsets:
            return
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _MOVING:
                self._member.tell(logging.WARNING, _described(error.args[0]))

    def _is_awaited(self, found: TopicPartition) -> bool:
        known = self._pending.get((found.topic, found.partition))
        told = CommitState(found.offset, found.metadata or "")
        return known is not None and known[1] == told

    def _add(self, slot: AssignedPartition) -> None:
        if not slot.dirty:
            return
        slot.dirty = False
        state = slot.window.state(slot.limit)
        if state == slot.committed:
            # That they are in flight is known already, from a life before.
            self._member.hand_over(slot, slot.waiting)
        else:
            place = slot.topic, slot.partition
            self._pending[place] = slot, state, slot.waiting
        slot.waiting = []

    def _adapt(self) -> None:
        """Mark as much ahead as is settled in the time of two commits."""
        wanted = self._terms.room + 2 * self.settled
        # It shrinks slowly: one slow moment is not the end of a fast stretch.
        wanted = max(wanted, self._terms.room, self.room * 3 // 4)
        self.room = min(max(_MOST, self._terms.room), wanted)
        self.settled = 0


class FlowControl:
    """How much is fetched ahead, and what is paused."""

    def __init__(self) -> None:
        #: How many records are to be fetched next.
        self.room = 1
        #: How large records are, by those that came last.
        self._mean = _BYTES // 16
        self._halted = False
        self._full_since: float | None = None
        self._next = 0.0

    def look(
        self,
        consumer: Consumer,
        slots: list[AssignedPartition],
        ahead: int,
        quiet: bool,
    ) -> None:
        """Pause and resume, as is needed to have about ``ahead`` records here."""
        loose = [slot for slot in slots if not slot.stuck]
        count = sum(len(slot.buffer) for slot in loose)
        size = sum(slot.size for slot in loose)
        self.room = 0
        if size < _BYTES and sum(slot.size for slot in slots) < _BYTES_STUCK:
            self._mean = max(1, size // count) if count else self._mean
            self.room = min(ahead - count, (_BYTES - size) // self._mean)
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LOOK
        for slot in slots:
            slot.look(now)
        enough = count > ahead // 2 or size > _BYTES // 2
        too_much = count > 2 * ahead or size > 2 * _BYTES
        self._decide(now, enough, quiet or too_much)
        for slot in slots:
            _switch(consumer, slot, self._is_unwanted(slot))

    def _decide(self, now: float, enough: bool, at_once: bool) -> None:
        if self.room > 0:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        if at_once or (self._full_since and now - self._full_since > _FULL):
            self._halted = True
        elif not enough:
            self._halted = False

    def _is_unwanted(self, slot: AssignedPartition) -> bool:
        return self._halted or slot.stuck


def _of_absence(absence: Outage) -> str:
    if absence.lasts:
        return (
            "Kafka does not answer. What is in hand stays in hand, and the group keeps"
            " our place, until the session is over ('QCONSUME_LEASE')."
        )
    return "Kafka answers again."


class _Lines:
    """Takes what the client logs, in place of a logger.

    What matters of it comes as an error too, so it is for whoever looks closely.
    """

    def __init__(self, told: deque[tuple[int, str]]) -> None:
        self._told = told

    def log(self, level: int, text: str, *values: t.Any) -> None:
        """Keep a line for the hub."""
        self._told.append((logging.DEBUG, text % values))


def _switch(consumer: Consumer, slot: AssignedPartition, paused: bool) -> None:
    """Pause or resume a slot, unless it is so.

    Never within the client's own callbacks: while partitions move it may not return.
    """
    if slot.paused is paused:
        return
    place = [TopicPartition(slot.topic, slot.partition)]
    # It may not be the client's any more.
    with contextlib.suppress(KafkaException):
        (consumer.pause if paused else consumer.resume)(place)
        slot.paused = paused


def _offset(slot: AssignedPartition, state: CommitState) -> TopicPartition:
    return TopicPartition(slot.topic, slot.partition, state.offset, state.metadata)


def _is_starving(slots: list[AssignedPartition]) -> bool:
    """Whether the hub has nothing to do, and would have after a commit."""
    waiting = any(slot.waiting for slot in slots)
    return waiting and not any(slot.in_hands > 0 for slot in slots)


def _described(error: KafkaError) -> str:
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return (
            f"{error.str()}. Nothing comes of it before somebody creates it, as 'flask"
            " qconsume declare' does for topics that are the app's own."
        )
    return f"Kafka's client says: {error.str()} ({error.name()}); it goes on."
