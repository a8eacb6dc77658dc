"""Points at which a process can die, and cases with the allowed outcomes. No I/O.

A *point* is a moment at which the worker of :mod:`.crashing` kills itself. A *case* is
a message with a scenario, and the points at which its first processes die; the process
after them does not crash, and must complete the message.
"""

from __future__ import annotations

import enum
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field


class Point(enum.Enum):
    """All points at which a process can die; the table shows the values."""

    # The start of the worker, before it has a message.
    DECLARED = "the topology is declared"
    BEFORE_WORKER = "before_worker hook"
    CONNECTED = "connected"
    WORKER_STARTED = "worker_started signal"
    # Handling of a message.
    RECEIVED = "received from the broker"
    TRIAGED = "checked and passed to the handlers"
    GIVEN = "message_received signal"
    BEFORE = "before_message hook"
    BEGUN = "handler begun"
    BEGUN_AGAIN = "second attempt begun"
    COMMITTED = "handler committed"
    AFTER = "after_message hook"
    TEARDOWN = "teardown_message hook"
    HANDLED = "message_handled signal"
    RETRIED = "message_retried signal"
    FAILED = "message_failed signal"
    REJECTED = "message_rejected signal"
    DROPPED = "message_dropped signal"
    HELD = "held in the worker for a short retry"
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
    # Heartbeats.
    BEFORE_BEAT = "before a heartbeat"
    AFTER_BEAT = "after a heartbeat"
    # The stop of the worker.
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

#: Methods of links and brokers, signals and hooks, with their points. A test finds
#: names that are missing here.
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
    # Changes only how much is fetched.
    "exceed_prefetch": (),
}
OF_BROKER: dict[str, tuple[Point, ...]] = {
    "connect": (Point.CONNECTED,),
    "declare": (Point.DECLARED,),
    "publish": (Point.BEFORE_PUBLISH, Point.SENT, Point.AFTER_PUBLISH),
    "close": (Point.BROKER_CLOSED,),
    # Names, forks and requests of commands: no message is involved.
    "names": (),
    "check_names": (),
    "companion_names": (),
    "note_worker": (),
    "abandon_after_fork": (),
    "caveats": (),
    "read_statuses": (),
    "read_backlog": (),
    "read_held_back": (),
    "count_kept_in_process": (),
    "find_bindings": (),
    "list_ddl": (),
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
    "message_failed": Point.FAILED,
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
#: Points in the handler, or next to it.
OF_HANDLERS = (Point.BEGUN, Point.BEGUN_AGAIN, Point.COMMITTED, Point.HELD)

#: Brokers that forward a copy and acknowledge its message in one step.
IN_ONE_STEP = frozenset({"redis", "streams", "postgresql", "sqlite"})
#: Brokers that do not answer acknowledgements.
UNANSWERED = frozenset({"quorum", "classic", "kafka"})
#: Brokers on which a suspect has left its queue before it is begun; and those that may
#: process the acknowledgement later.
MOVED = ("redis", "streams", "kafka", "postgresql", "sqlite")
SOON = ("quorum", "classic")
ALL = ("quorum", "classic", "redis", "streams", "kafka", "postgresql", "sqlite")


@dataclass(frozen=True)
class Case:
    """One message, its scenario, and the points at which its first processes die.

    :param most: How often it may be completed, or become a dead letter, at most.
    :param tries: How often its first attempt may be begun at most.
    """

    scenario: str
    deaths: tuple[str, ...]
    most: int = 1
    tries: int = 2
    brokers: tuple[str, ...] = ALL
    #: Numbers of further messages that must be handled, and how often at most.
    others: t.Mapping[int, int] = field(default_factory=dict)
    #: Whether it may become a dead letter, since three processes died that held it,
    #: which is the limit.
    buried: bool = False

    def slack(self, broker: str) -> int:
        """Return how many more copies are allowed on a broker.

        A move to the lane may leave the message in its queue too, if the broker had not
        processed the acknowledgement when the process died.
        """
        return int(broker in SOON and any(d.startswith(SUSPECTS) for d in self.deaths))

    @property
    def short(self) -> bool:
        """Whether the case belongs to the short profile."""
        return (self.scenario, self.deaths[-1]) in _SHORT

    @property
    def name(self) -> str:
        """The name of the case in the table."""
        return f"{self.scenario}: {', then '.join(self.deaths)}"


def at(*points: Point | str) -> tuple[str, ...]:
    """Return the names of points."""
    return tuple(p.value if isinstance(p, Point) else p for p in points)


def in_lane(point: Point) -> str:
    """Return the name of a point in the lane of suspects."""
    return SUSPECTS + point.value


def cases() -> list[Case]:
    """Return all cases."""
    return [
        *_start_cases(),
        *_ack_cases(),
        *_drop_cases(),
        *_retry_cases(),
        *_reject_cases(),
        *_suspect_cases(),
        *_repeated_suspect_cases(),
        *_failing_suspect_cases(),
        *_ordered_cases(),
        *_heartbeat_cases(),
        *_stop_cases(),
        *_publish_cases(),
    ]


def _start_cases() -> Iterator[Case]:
    """Yield deaths before the worker had a message: it is handled once."""
    for point in (
        Point.DECLARED,
        Point.BEFORE_WORKER,
        Point.CONNECTED,
        Point.WORKER_STARTED,
    ):
        yield Case("ack", at(point), tries=1)


def _ack_cases() -> Iterator[Case]:
    """Yield deaths before the ack: a committed message may be handled twice."""
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
    yield from _after_ack_cases("ack", (), Point.AFTER_ACK)


def _after_ack_cases(
    scenario: str, before: tuple[str, ...], *points: Point
) -> Iterator[Case]:
    """Yield deaths after the ack: a message may repeat if the ack is not answered."""
    answering = tuple(each for each in ALL if each not in UNANSWERED)
    for point in points:
        deaths = (*before, *at(point))
        first = 1 + len(before)
        yield Case(scenario, deaths, 1, first, answering)
        yield Case(scenario, deaths, 2, first + 1, tuple(sorted(UNANSWERED)))


def _drop_cases() -> Iterator[Case]:
    yield Case("drop", at(Point.DROPPED), most=2)


def _retry_cases() -> Iterator[Case]:
    yield Case("retry", at(Point.RETRIED))
    yield Case("retry", at(Point.BEFORE_RETRY))
    # The copy is published and the message not acknowledged: two copies.
    yield Case("retry", at(Point.BEFORE_ACK), 2, 2, _copying())
    yield from _after_ack_cases("retry", (), Point.AFTER_RETRY)
    yield Case("retry", at(Point.BEGUN_AGAIN), tries=1)
    yield Case("short retry", at(Point.RETRIED))
    yield Case("short retry", at(Point.HELD))
    yield Case("short retry", at(Point.BEGUN_AGAIN))


def _copying() -> tuple[str, ...]:
    return tuple(each for each in ALL if each not in IN_ONE_STEP)


def _in_one_step() -> tuple[str, ...]:
    return tuple(each for each in ALL if each in IN_ONE_STEP)


def _reject_cases() -> Iterator[Case]:
    yield Case("reject", at(Point.FAILED))
    yield Case("reject", at(Point.REJECTED))
    yield Case("reject", at(Point.BEFORE_DEAD))
    yield Case("reject", at(Point.BEFORE_ACK), 2, 2, _copying())
    yield from _after_ack_cases("reject", (), Point.AFTER_DEAD)


def _suspect_cases() -> Iterator[Case]:
    """Yield deaths of a second process, after one died in the handler."""
    first = at(Point.BEGUN)
    yield Case("ack", (*first, *at(Point.BEFORE_SUSPECT)))
    yield Case("ack", (*first, *at(Point.BEFORE_ACK)), 2, 3, _copying())
    yield Case("ack", (*first, *at(Point.AFTER_SUSPECT)), brokers=MOVED)
    yield Case("ack", (*first, *at(Point.AFTER_SUSPECT)), 2, 3, SOON)
    # The suspect arrives before its original is acknowledged, and begins after.
    yield Case("ack", (*first, in_lane(Point.RECEIVED)), 2, 3, _copying())
    yield Case("ack", (*first, in_lane(Point.RECEIVED)), brokers=_in_one_step())
    yield Case("ack", (*first, in_lane(Point.BEGUN)), tries=3)
    for point in (Point.COMMITTED, Point.HANDLED, Point.BEFORE_ACK):
        yield Case("ack", (*first, in_lane(point)), most=2, tries=3)
    yield Case("ack", (*first, in_lane(Point.AFTER_ACK)), 1, 3, _in_one_step())
    yield Case("ack", (*first, in_lane(Point.AFTER_ACK)), 2, 3, _copying())


def _repeated_suspect_cases() -> Iterator[Case]:
    """Yield deaths of a third process, as it puts the suspect back into the lane."""
    lane = at(Point.BEGUN, in_lane(Point.BEGUN))
    yield Case("ack", (*lane, in_lane(Point.BEFORE_SUSPECT)), tries=3)
    yield Case("ack", (*lane, in_lane(Point.BEFORE_ACK)), 2, 4, _copying())
    # A suspect that the broker has delivered by then counts as begun.
    back = (*lane, in_lane(Point.AFTER_SUSPECT))
    yield Case("ack", back, 2, 4, _copying(), buried=True)
    yield Case("ack", back, 1, 3, _in_one_step())


def _failing_suspect_cases() -> Iterator[Case]:
    """Yield deaths while a suspect fails by an error, and leaves the lane."""
    first = at(Point.BEGUN)
    yield Case("retry", (*first, in_lane(Point.BEFORE_RETRY)), tries=3)
    yield Case("retry", (*first, in_lane(Point.BEFORE_ACK)), 2, 3, _copying())
    yield Case("retry", (*first, in_lane(Point.AFTER_RETRY)), 2, 3)
    yield Case("reject", (*first, in_lane(Point.BEFORE_DEAD)), tries=3)
    yield Case("reject", (*first, in_lane(Point.AFTER_DEAD)), 2, 3)


def _ordered_cases() -> Iterator[Case]:
    """Yield deaths on an ordered consumer, whose retries stay in place."""
    for point in (Point.BEFORE_POSTPONE, Point.AFTER_POSTPONE):
        yield Case("retry in order", at(point), brokers=("kafka",))
    twice = at(Point.BEGUN, Point.BEGUN)
    yield Case("retry in order", twice, tries=3, brokers=("kafka",))
    yield Case("reject in order", at(Point.BEFORE_DEAD), brokers=("kafka",))


def _heartbeat_cases() -> Iterator[Case]:
    # Kafka's client sends heartbeats in its own thread.
    brokers = tuple(each for each in ALL if each != "kafka")
    for point in (Point.BEFORE_BEAT, Point.AFTER_BEAT):
        yield Case("wait", at(point), brokers=brokers)


def _stop_cases() -> Iterator[Case]:
    """Yield deaths during a stop, with one message handled and one waiting."""
    for point in (
        Point.WORKER_STOPPING,
        Point.BEFORE_PAUSE,
        Point.AFTER_PAUSE,
        Point.BEFORE_RELEASE,
        Point.AFTER_RELEASE,
    ):
        yield Case("stop", at(point), most=2, others={2: 1})
    # The message is handled and acknowledged; the broker may not have noticed yet.
    for point in (
        Point.BEFORE_CLOSE,
        Point.AFTER_CLOSE,
        Point.TEARDOWN_WORKER,
        Point.BROKER_CLOSED,
        Point.WORKER_STOPPED,
    ):
        unheard = 2 if point is Point.BEFORE_CLOSE else 1
        yield Case("stop", at(point), most=unheard, tries=unheard, others={2: 1})


def _publish_cases() -> Iterator[Case]:
    """Yield deaths while the handler publishes the second of two messages."""
    for point in (
        Point.BEFORE_PUBLISH,
        Point.SENT,
        Point.AFTER_PUBLISH,
        Point.PUBLISHED,
    ):
        second = 1 if point is Point.BEFORE_PUBLISH else 2
        yield Case("publish", at(point), others={2: 2, 3: second})


#: Cases of the short profile: points before, within and after each step.
_SHORT = {
    (scenario, death)
    for scenario, deaths in {
        "ack": (
            *at(Point.RECEIVED, Point.BEGUN, Point.COMMITTED),
            *at(Point.BEFORE_ACK, Point.AFTER_ACK),
            *at(Point.BEFORE_SUSPECT, Point.AFTER_SUSPECT),
            *map(in_lane, (Point.BEGUN, Point.COMMITTED, Point.AFTER_SUSPECT)),
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
