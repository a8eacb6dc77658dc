"""Where a process can die on a message's way, and what may come of it. No I/O.

A *point* is a moment at which the worker of :mod:`.crashing` kills itself. A *case* is
a message that has something happen to it, and the points at which its first processes
die; the one after them lives, and has to bring it to its end.
"""

from __future__ import annotations

import enum
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field


class Point(enum.Enum):
    """All boundaries of a message's life; the values are shown in the table."""

    # The worker, with nothing in hand yet.
    DECLARED = "the topology is declared"
    BEFORE_WORKER = "before_worker hook"
    CONNECTED = "connected"
    WORKER_STARTED = "worker_started signal"
    # A message's way through the worker.
    RECEIVED = "received from the broker"
    TRIAGED = "judged and put before the handlers"
    GIVEN = "message_received signal"
    BEFORE = "before_message hook"
    BEGUN = "handler begun"
    BEGUN_AGAIN = "second attempt begun"
    COMMITTED = "handler committed"
    AFTER = "after_message hook"
    TEARDOWN = "teardown_message hook"
    HANDLED = "message_handled signal"
    RETRIED = "message_retried signal"
    REJECTED = "message_rejected signal"
    DROPPED = "message_dropped signal"
    HELD = "held here for a short retry"
    # Settlement.
    BEFORE_ACK = "before the ack"
    AFTER_ACK = "after the ack"
    BEFORE_RETRY = "before its retry is published"
    AFTER_RETRY = "after its retry"
    BEFORE_DEAD = "before its dead letter is published"
    AFTER_DEAD = "after its dead letter"
    BEFORE_SUSPECT = "before it goes to the suspects"
    AFTER_SUSPECT = "after it went to the suspects"
    BEFORE_POSTPONE = "before a retry in its place"
    AFTER_POSTPONE = "after a retry in its place"
    # What a connection does beside.
    BEFORE_BEAT = "before a heartbeat"
    AFTER_BEAT = "after a heartbeat"
    # A stop.
    WORKER_STOPPING = "worker_stopping signal"
    BEFORE_PAUSE = "before fetching ends"
    AFTER_PAUSE = "after fetching has ended"
    BEFORE_RELEASE = "before the unstarted goes back"
    AFTER_RELEASE = "after the unstarted went back"
    BEFORE_CLOSE = "before the connection is closed"
    AFTER_CLOSE = "after the connection is closed"
    TEARDOWN_WORKER = "teardown_worker hook"
    BROKER_CLOSED = "all of the broker is closed"
    WORKER_STOPPED = "worker_stopped signal"
    # Publishing, by a handler.
    BEFORE_PUBLISH = "before a publish"
    SENT = "sent and not confirmed"
    AFTER_PUBLISH = "confirmed by the broker"
    PUBLISHED = "message_published signal"


#: A point in the lane of suspects.
SUSPECTS = "lane: "

#: Seams of the code, and where a process dies at them. The names are methods of a link
#: and of a broker, signals, and hooks; what is missing here is found by a test.
OF_LINK: dict[str, tuple[Point, ...]] = {
    "read": (Point.RECEIVED, Point.TRIAGED),
    "ack": (Point.BEFORE_ACK, Point.AFTER_ACK),
    "forward": (
        *(Point.BEFORE_RETRY, Point.AFTER_RETRY),
        *(Point.BEFORE_DEAD, Point.AFTER_DEAD),
        *(Point.BEFORE_SUSPECT, Point.AFTER_SUSPECT),
    ),
    "postpone": (Point.BEFORE_POSTPONE, Point.AFTER_POSTPONE),
    "keep_alive": (Point.BEFORE_BEAT, Point.AFTER_BEAT),
    "pause": (Point.BEFORE_PAUSE, Point.AFTER_PAUSE),
    "release": (Point.BEFORE_RELEASE, Point.AFTER_RELEASE),
    "close": (Point.BEFORE_CLOSE, Point.AFTER_CLOSE),
    # Changes how much is fetched, and nothing of what was.
    "exceed_prefetch": (),
}
OF_BROKER: dict[str, tuple[Point, ...]] = {
    "connect": (Point.CONNECTED,),
    "declare": (Point.DECLARED,),
    "publish": (Point.BEFORE_PUBLISH, Point.SENT, Point.AFTER_PUBLISH),
    "close": (Point.BROKER_CLOSED,),
    # Names, forks, and what commands and waits ask: beside the messages' way.
    "names": (),
    "check_names": (),
    "companion_names": (),
    "note_worker": (),
    "abandon_after_fork": (),
    "caveats": (),
    "read_statuses": (),
    "read_held_back": (),
    "count_kept_in_process": (),
    "find_bindings": (),
    "is_reachable": (),
    "all_capabilities": (),
    "declare_delays": (),
    "stale_bindings": (),
    "unbind": (),
    "depth": (),
    "read_suspects": (),
    "dead_letters": (),
}
OF_SIGNALS: dict[str, Point] = {
    "message_received": Point.GIVEN,
    "message_handled": Point.HANDLED,
    "message_retried": Point.RETRIED,
    "message_rejected": Point.REJECTED,
    "message_dropped": Point.DROPPED,
    "message_published": Point.PUBLISHED,
    "worker_started": Point.WORKER_STARTED,
    "worker_stopping": Point.WORKER_STOPPING,
    "worker_stopped": Point.WORKER_STOPPED,
}
OF_HOOKS: dict[str, Point] = {
    "before_message": Point.BEFORE,
    "after_message": Point.AFTER,
    "teardown_message": Point.TEARDOWN,
    "before_worker": Point.BEFORE_WORKER,
    "teardown_worker": Point.TEARDOWN_WORKER,
}
#: In a handler, or beside it.
OF_HANDLERS = (Point.BEGUN, Point.BEGUN_AGAIN, Point.COMMITTED, Point.HELD)

#: On these a copy is put elsewhere and its message acknowledged in one step.
IN_ONE_STEP = frozenset({"redis", "streams"})
#: On these an acknowledgement is told to the broker, and not answered.
UNANSWERED = frozenset({"quorum", "classic", "kafka"})
#: On these a suspect has left its queue for good before it is begun; on the others its
#: acknowledgement may be noticed somewhat later, if they are slow.
MOVED = ("redis", "streams", "kafka")
SOON = ("quorum", "classic")
ALL = ("quorum", "classic", "redis", "streams", "kafka")


@dataclass(frozen=True)
class Case:
    """One message, what happens to it, and where its first processes die.

    :param most: How often it may be handled to its end, or buried, at the most.
    :param tries: How often it may be started as its first attempt at the most.
    """

    story: str
    deaths: tuple[str, ...]
    most: int = 1
    tries: int = 2
    brokers: tuple[str, ...] = ALL
    #: Numbers of further messages that must be handled, and how often at the most.
    others: t.Mapping[int, int] = field(default_factory=dict)
    #: Whether it may be a dead letter, although nothing is wrong with it: three
    #: processes died that had it, and so many are the limit.
    buried: bool = False

    def slack(self, broker: str) -> int:
        """How often more it may be, since a move to the lane left it in its queue, too,
        as far as the broker had noticed when the process died."""
        return int(broker in SOON and any(d.startswith(SUSPECTS) for d in self.deaths))

    @property
    def short(self) -> bool:
        """Whether it belongs to the cases that are run each time."""
        return (self.story, self.deaths[-1]) in _SHORT

    @property
    def name(self) -> str:
        """What stands in the table."""
        return f"{self.story}: {', then '.join(self.deaths)}"


def at(*points: Point | str) -> tuple[str, ...]:
    """The names of points."""
    return tuple(p.value if isinstance(p, Point) else p for p in points)


def apart(point: Point) -> str:
    """A point in the lane of suspects."""
    return SUSPECTS + point.value


def cases() -> list[Case]:
    """All of them."""
    return [
        *_started(),
        *_acked(),
        *_dropped(),
        *_retried(),
        *_rejected(),
        *_suspected(),
        *_suspected_again(),
        *_fails_apart(),
        *_in_order(),
        *_beating(),
        *_stopped(),
        *_publishes(),
    ]


def _started() -> Iterator[Case]:
    """Nothing was in hand: once."""
    for point in (
        Point.DECLARED,
        Point.BEFORE_WORKER,
        Point.CONNECTED,
        Point.WORKER_STARTED,
    ):
        yield Case("ack", at(point), tries=1)


def _acked() -> Iterator[Case]:
    """Once until it has committed, twice until it is acknowledged."""
    for point in (Point.RECEIVED, Point.TRIAGED, Point.GIVEN, Point.BEFORE):
        yield Case("ack", at(point), tries=1)
    yield Case("ack", at(Point.BEGUN))
    for point in (
        Point.COMMITTED,
        Point.AFTER,
        Point.TEARDOWN,
        Point.HANDLED,
        Point.BEFORE_ACK,
    ):
        yield Case("ack", at(point), most=2)
    yield from _answered("ack", (), Point.AFTER_ACK)


def _answered(story: str, before: tuple[str, ...], *points: Point) -> Iterator[Case]:
    """After the ack: once where it is answered, at most twice where it is not."""
    told = tuple(each for each in ALL if each not in UNANSWERED)
    for point in points:
        deaths = (*before, *at(point))
        first = 1 + len(before)
        yield Case(story, deaths, 1, first, told)
        yield Case(story, deaths, 2, first + 1, tuple(sorted(UNANSWERED)))


def _dropped() -> Iterator[Case]:
    yield Case("drop", at(Point.DROPPED), most=2)


def _retried() -> Iterator[Case]:
    yield Case("retry", at(Point.RETRIED))
    yield Case("retry", at(Point.BEFORE_RETRY))
    # Published, and not acknowledged: there are two.
    yield Case("retry", at(Point.BEFORE_ACK), 2, 2, _copying())
    yield from _answered("retry", (), Point.AFTER_RETRY)
    yield Case("retry", at(Point.BEGUN_AGAIN), tries=1)
    yield Case("short retry", at(Point.RETRIED))
    yield Case("short retry", at(Point.HELD))
    yield Case("short retry", at(Point.BEGUN_AGAIN))


def _copying() -> tuple[str, ...]:
    return tuple(each for each in ALL if each not in IN_ONE_STEP)


def _in_one_step() -> tuple[str, ...]:
    return tuple(each for each in ALL if each in IN_ONE_STEP)


def _rejected() -> Iterator[Case]:
    yield Case("reject", at(Point.REJECTED))
    yield Case("reject", at(Point.BEFORE_DEAD))
    yield Case("reject", at(Point.BEFORE_ACK), 2, 2, _copying())
    yield from _answered("reject", (), Point.AFTER_DEAD)


def _suspected() -> Iterator[Case]:
    """A process died in its handler; what the next one does with it."""
    first = at(Point.BEGUN)
    yield Case("ack", (*first, *at(Point.BEFORE_SUSPECT)))
    yield Case("ack", (*first, *at(Point.BEFORE_ACK)), 2, 3, _copying())
    yield Case("ack", (*first, *at(Point.AFTER_SUSPECT)), brokers=MOVED)
    yield Case("ack", (*first, *at(Point.AFTER_SUSPECT)), 2, 3, SOON)
    # It is there before the other one is acknowledged, and not begun before that.
    yield Case("ack", (*first, apart(Point.RECEIVED)), 2, 3, _copying())
    yield Case("ack", (*first, apart(Point.RECEIVED)), brokers=_in_one_step())
    yield Case("ack", (*first, apart(Point.BEGUN)), tries=3)
    for point in (Point.COMMITTED, Point.HANDLED, Point.BEFORE_ACK):
        yield Case("ack", (*first, apart(point)), most=2, tries=3)
    yield Case("ack", (*first, apart(Point.AFTER_ACK)), 1, 3, _in_one_step())
    yield Case("ack", (*first, apart(Point.AFTER_ACK)), 2, 3, _copying())


def _suspected_again() -> Iterator[Case]:
    """Two processes died of it, and a third one does as it puts it back in the lane."""
    lane = at(Point.BEGUN, apart(Point.BEGUN))
    yield Case("ack", (*lane, apart(Point.BEFORE_SUSPECT)), tries=3)
    yield Case("ack", (*lane, apart(Point.BEFORE_ACK)), 2, 4, _copying())
    # What the broker gives out by then counts as begun, if it was delivered.
    back = (*lane, apart(Point.AFTER_SUSPECT))
    yield Case("ack", back, 2, 4, _copying(), buried=True)
    yield Case("ack", back, 1, 3, _in_one_step())


def _fails_apart() -> Iterator[Case]:
    """A suspect that fails by an error, and is no suspect any more."""
    first = at(Point.BEGUN)
    yield Case("retry", (*first, apart(Point.BEFORE_RETRY)), tries=3)
    yield Case("retry", (*first, apart(Point.BEFORE_ACK)), 2, 3, _copying())
    yield Case("retry", (*first, apart(Point.AFTER_RETRY)), 2, 3)
    yield Case("reject", (*first, apart(Point.BEFORE_DEAD)), tries=3)
    yield Case("reject", (*first, apart(Point.AFTER_DEAD)), 2, 3)


def _in_order() -> Iterator[Case]:
    """Where an order is kept, suspects and retries stay where they are."""
    for point in (Point.BEFORE_POSTPONE, Point.AFTER_POSTPONE):
        yield Case("retry in order", at(point), brokers=("kafka",))
    twice = at(Point.BEGUN, Point.BEGUN)
    yield Case("retry in order", twice, tries=3, brokers=("kafka",))
    yield Case("reject in order", at(Point.BEFORE_DEAD), brokers=("kafka",))


def _beating() -> Iterator[Case]:
    # Kafka's client beats in a thread of its own, and nothing is done by it.
    brokers = tuple(each for each in ALL if each != "kafka")
    for point in (Point.BEFORE_BEAT, Point.AFTER_BEAT):
        yield Case("wait", at(point), brokers=brokers)


def _stopped() -> Iterator[Case]:
    """One is being handled as the stop begins, and one is behind it."""
    for point in (
        Point.WORKER_STOPPING,
        Point.BEFORE_PAUSE,
        Point.AFTER_PAUSE,
        Point.BEFORE_RELEASE,
        Point.AFTER_RELEASE,
    ):
        yield Case("stop", at(point), most=2, others={2: 1})
    # By then it is handled, and was acknowledged, however quickly a broker hears it.
    for point in (
        Point.BEFORE_CLOSE,
        Point.AFTER_CLOSE,
        Point.TEARDOWN_WORKER,
        Point.BROKER_CLOSED,
        Point.WORKER_STOPPED,
    ):
        unheard = 2 if point is Point.BEFORE_CLOSE else 1
        yield Case("stop", at(point), most=unheard, tries=unheard, others={2: 1})


def _publishes() -> Iterator[Case]:
    """Its handler publishes two others; it dies at the second one."""
    for point in (
        Point.BEFORE_PUBLISH,
        Point.SENT,
        Point.AFTER_PUBLISH,
        Point.PUBLISHED,
    ):
        second = 1 if point is Point.BEFORE_PUBLISH else 2
        yield Case("publish", at(point), others={2: 2, 3: second})


#: One of each kind: before anything is done, in the midst, and after it.
_SHORT = {
    (story, death)
    for story, deaths in {
        "ack": (
            *at(Point.RECEIVED, Point.BEGUN, Point.COMMITTED),
            *at(Point.BEFORE_ACK, Point.AFTER_ACK),
            *at(Point.BEFORE_SUSPECT, Point.AFTER_SUSPECT),
            *map(apart, (Point.BEGUN, Point.COMMITTED, Point.AFTER_SUSPECT)),
        ),
        "retry": at(Point.BEFORE_RETRY, Point.BEFORE_ACK, Point.AFTER_RETRY),
        "short retry": at(Point.HELD),
        "reject": at(Point.BEFORE_DEAD, Point.BEFORE_ACK, Point.AFTER_DEAD),
        "retry in order": at(Point.AFTER_POSTPONE),
        "stop": at(Point.BEFORE_RELEASE, Point.AFTER_RELEASE, Point.BEFORE_CLOSE),
        "publish": at(Point.SENT),
    }.items()
    for death in deaths
}
