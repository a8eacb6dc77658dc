"""Whether a worker lives and is ready: facts in, a verdict out. No I/O, no clock.

*Live* means that starting the process anew would not help. A broker that is away is no
reason for that: the worker repairs itself, and is only not *ready* meanwhile. What
would not end by itself (a hub that somebody blocks, a consumer that reads nothing
although messages wait) makes the process not live.

Time is counted in looks and not in seconds where it matters: a process that was halted
itself (a suspended machine, SIGSTOP) is not to blame for what it did not do meanwhile.
"""

from __future__ import annotations

import json
import logging
import typing as t
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from ...text import escape
from ...text import pluralize

N = t.TypeVar("N", int, float)

#: How many troubles are told at once, at the most.
_MOST = 10

#: Seconds that a hub may be busy with one greenlet before it is worth telling.
_MOMENT = 2.0

#: How often a queue is looked at within the time after which it counts as stalled.
LOOKS = 3


class Lane(t.NamedTuple):
    """How the lane of a consumer's suspects stands."""

    consumer: str
    #: How many wait in it; ``None`` where the broker has not been asked yet.
    waiting: int | None
    #: For how many seconds the oldest has been a suspect, the one in hand included;
    #: ``None`` where there is none, or nobody can tell.
    oldest: float | None


@dataclass(frozen=True)
class Facts:
    """What is known of one subscription at one moment; times are seconds."""

    name: str
    queue: str
    connected: bool
    #: Whether the greenlets that look after it are running.
    tended: bool
    #: A handler's time limit, and how many handlers are far beyond it.
    limit: float
    late: int
    concurrency: int
    #: How many handled messages are being settled, and for how long the oldest has.
    unsettled: int
    unsettled_for: float
    #: Whether the broker refused some of them, so that it is tried again.
    put_off: bool
    #: Whether its dead-letter queue refused dead letters, so that they wait elsewhere.
    parks: bool
    #: For how long a message that was read has waited for a handler with one free.
    stuck_for: float
    #: For how long messages have waited in the queue and none was read, and how many.
    hungry_for: float
    backlog: int
    #: Where it is one of suspects.
    lane: Lane | None = None


@dataclass(frozen=True)
class Snapshot:
    """What is known of a worker at one moment."""

    #: For how many seconds nothing but one greenlet has run, and where that one is.
    silent_for: float
    where: str
    started: bool
    stopping: bool
    subscriptions: Sequence[Facts]
    #: For how long no more messages were begun than a busy site leaves at least, and
    #: how late the hub is, in seconds.
    slowed_for: float = 0.0
    late: float = 0.0
    #: For how many seconds it has been starting.
    starting_for: float = 0.0
    #: For how many seconds a log handler has not returned.
    logging_for: float = 0.0


class Limits(t.NamedTuple):
    """Seconds after which something counts as wrong."""

    blocked: float
    stalled: float
    starting: float


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong."""

    kind: str
    about: str
    text: str
    #: Whether the process should be started anew.
    fatal: bool = False
    #: Whether to log it: what others have logged is only shown.
    logged: bool = True
    level: int = logging.ERROR

    @property
    def key(self) -> tuple[str, str]:
        """The same as long as it is the same trouble."""
        return self.kind, self.about


@dataclass(frozen=True)
class Verdict:
    """What the checks answer."""

    live: bool
    ready: bool
    troubles: tuple[Trouble, ...] = ()
    #: For how many seconds the hub has not run.
    blocked_for: float = field(default=0.0, compare=False)
    #: The lanes that there are; they say nothing about the other fields.
    lanes: tuple[Lane, ...] = field(default=(), compare=False)

    def to_json(self) -> str:
        """One line of JSON."""
        wrong = [escape(trouble.text) for trouble in self.troubles[:_MOST]]
        said: dict[str, t.Any] = {
            "live": self.live,
            "ready": self.ready,
            "wrong": wrong,
        }
        if self.blocked_for >= _MOMENT:
            said["blocked"] = round(self.blocked_for, 1)
        if self.lanes:
            said["suspects"] = {
                lane.consumer: {"waiting": lane.waiting, "oldest": _whole(lane.oldest)}
                for lane in self.lanes
            }
        return json.dumps(said)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """What :meth:`to_json` made, with the troubles' texts only.

        :raises ValueError: if it is something else.
        """
        said = json.loads(text)
        if not isinstance(said, Mapping) or not {"live", "ready"} <= said.keys():
            raise ValueError("no verdict")
        try:
            return cls(
                bool(said["live"]),
                bool(said["ready"]),
                tuple(map(_told, said.get("wrong", ()))),
                float(said.get("blocked", 0.0)),
                tuple(_lanes(said.get("suspects", {}))),
            )
        except TypeError as error:
            raise ValueError("no verdict") from error


def _told(text: t.Any) -> Trouble:
    return Trouble("told", "", str(text), logged=False)


def _lanes(said: t.Any) -> t.Iterator[Lane]:
    try:
        for consumer, lane in said.items():
            yield Lane(consumer, lane["waiting"], lane["oldest"])
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("no verdict") from error


def judge(snapshot: Snapshot, limits: Limits) -> Verdict:
    """Whether a worker lives and is ready, and what is wrong with it."""
    troubles = [*_of_hub(snapshot, limits)]
    for facts in snapshot.subscriptions:
        troubles += _of_subscription(facts, snapshot, limits)
    live = not any(trouble.fatal for trouble in troubles)
    connected = all(facts.connected for facts in snapshot.subscriptions)
    ready = live and snapshot.started and not snapshot.stopping and connected
    lanes = tuple(facts.lane for facts in snapshot.subscriptions if facts.lane)
    return Verdict(live, ready, tuple(troubles), snapshot.silent_for, lanes)


def _of_hub(snapshot: Snapshot, limits: Limits) -> Iterable[Trouble]:
    if snapshot.silent_for >= limits.blocked:
        yield Trouble(
            "blocked",
            "",
            f"One greenlet has let no other run for {snapshot.silent_for:.0f} s, at"
            f" {snapshot.where}. No message, heartbeat or request is served meanwhile."
            " Where it computes, let it call 'gevent.sleep(0)' now and then, or give"
            " the work to 'gevent.get_hub().threadpool' or to another process; where"
            " it waits, it does so in code that gevent cannot patch.",
            fatal=True,
        )
    if snapshot.logging_for >= limits.blocked:
        yield _logging(snapshot)
    if snapshot.slowed_for >= limits.stalled:
        yield _slowed(snapshot)
    if not snapshot.started:
        yield _starting(snapshot, limits)
    if snapshot.stopping:
        yield Trouble("stopping", "", "The worker is stopping.", logged=False)


def _starting(snapshot: Snapshot, limits: Limits) -> Trouble:
    if snapshot.starting_for < limits.starting:
        text = "The worker has not started yet."
        return Trouble("starting", "", text, logged=False)
    return Trouble(
        "starting",
        "",
        f"The worker has been starting for {snapshot.starting_for:.0f} s: a"
        " 'before_worker' hook does not end. 'QCONSUME_START_TIMEOUT' is for those that"
        " take longer on purpose.",
        fatal=True,
    )


def _logging(snapshot: Snapshot) -> Trouble:
    return Trouble(
        "logging",
        "",
        f"A log handler has not returned for {snapshot.logging_for:.0f} s, and whatever"
        " logs waits for it. Give it a time limit, or have it write from a"
        " 'logging.handlers.QueueListener'.",
        fatal=True,
        logged=False,  # It would wait for that handler, too.
    )


def _slowed(snapshot: Snapshot) -> Trouble:
    return Trouble(
        "slowed",
        "",
        f"Messages have been begun at the least pace for {snapshot.slowed_for:.0f} s,"
        f" since the web server in this process goes first and the hub is"
        f" {snapshot.late * 1000:.0f} ms late. Where they pile up, let consumers run in"
        " a process of their own, by 'flask qconsume run', or let them have more by"
        " 'QCONSUME_HUB_LATENCY' and 'QCONSUME_LEAST_SHARE'.",
        level=logging.WARNING,
    )


def _of_subscription(
    facts: Facts, snapshot: Snapshot, limits: Limits
) -> Iterable[Trouble]:
    if not facts.tended and not snapshot.stopping:
        yield Trouble(
            "ended",
            facts.name,
            f"{facts.name}: what looks after it has ended by an error, so it consumes"
            " nothing any more. Start the process anew, and report the error above.",
            fatal=True,
        )
    if not facts.connected and not snapshot.stopping:
        text = f"{facts.name}: not connected to the queue '{facts.queue}'."
        yield Trouble("disconnected", facts.name, text, logged=False)
    if facts.late:
        yield _late(facts)
    if facts.unsettled_for >= limits.stalled:
        yield _unsettled(facts)
    if facts.parks:
        yield _parks(facts)
    if facts.stuck_for >= limits.stalled and not snapshot.stopping:
        yield _stuck(facts)
    if facts.hungry_for >= limits.stalled and not snapshot.stopping:
        yield _hungry(facts)
    if facts.lane and (facts.lane.oldest or 0.0) >= limits.stalled:
        yield _suspects(facts.lane, facts.queue)


def _late(facts: Facts) -> Trouble:
    return Trouble(
        "late",
        facts.name,
        f"{facts.name}: {pluralize(facts.late, 'handler')} far beyond the time limit of"
        f" {facts.limit:g} s. Others took their places, and their messages went to the"
        " retry policy. Let handlers pass on 'HandlerTimeout'.",
        # Some that hang cost little; as many as may run at once are a habit.
        fatal=facts.late >= facts.concurrency,
        logged=False,
    )


def _unsettled(facts: Facts) -> Trouble:
    begin = (
        f"{facts.name}: handled {pluralize(facts.unsettled, 'message')} and could not"
        f" settle for {facts.unsettled_for:.0f} s"
    )
    if facts.put_off or not facts.connected:
        text = (
            f"{begin}: the broker does not take them. They are not lost, and it is"
            " tried again; see the errors above, and look at the broker's disk, memory"
            " and limits."
        )
        return Trouble("unsettled", facts.name, text)
    text = (
        f"{begin}, although the connection is there. Start the process anew: they will"
        " be handled once more."
    )
    return Trouble("unsettled", facts.name, text, fatal=True)


def _parks(facts: Facts) -> Trouble:
    return Trouble(
        "parked",
        facts.name,
        f"{facts.name}: its dead-letter queue refuses dead letters, which wait as"
        " retries meanwhile. Nothing is lost, and other messages are handled; make room"
        " by 'flask qconsume dead-letters', or raise the queue's limit.",
        logged=False,
    )


def _stuck(facts: Facts) -> Trouble:
    return Trouble(
        "stuck",
        facts.name,
        f"{facts.name}: a message has waited for a handler for"
        f" {facts.stuck_for:.0f} s, although fewer than {facts.concurrency} are being"
        " handled. Start the process anew: the message will be delivered again.",
        fatal=True,
    )


def _hungry(facts: Facts) -> Trouble:
    return Trouble(
        "hungry",
        facts.name,
        f"{facts.name}: connected, but it has read nothing for {facts.hungry_for:.0f} s"
        f" although the queue '{facts.queue}' has"
        f" {pluralize(facts.backlog, 'message')}."
        " Start the process anew; if it comes again, look at the queue's consumers on"
        " the broker.",
        fatal=True,
    )


def _suspects(lane: Lane, queue: str) -> Trouble:
    behind = f", and {lane.waiting} wait in the lane" if lane.waiting else ""
    return Trouble(
        "suspects",
        lane.consumer,
        f"{lane.consumer}: a suspect in '{queue}' has been one for"
        f" {lane.oldest:.0f} s{behind}. Each process handles one of them at a time:"
        " start more processes, or give the consumer a shorter 'timeout' if it is one"
        " that takes long. Look into the logs for why processes die; 'flask qconsume"
        " status' tells how many are left.",
    )


def _whole(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


class Silence:
    """For how many seconds a pulse has not moved, seen by regular looks.

    :param interval: Seconds between two looks, as intended.
    """

    def __init__(self, interval: float) -> None:
        self._most = 2 * interval
        self._seen: object = None
        self.seconds = 0.0

    def look(self, pulse: object, elapsed: float) -> float:
        """Look once more.

        :param elapsed: Seconds since the last look.
        """
        moved = pulse != self._seen
        self._seen = pulse
        self.seconds = 0.0 if moved else self.seconds + min(elapsed, self._most)
        return self.seconds


class Slowness:
    """For how long consumers have been slowed, seen by regular looks.

    :param interval: Seconds between two looks, as intended.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._looks = 0

    def look(self, slowed: bool) -> float:
        """Look once more; for how many seconds they have been."""
        self._looks = self._looks + 1 if slowed else 0
        return self._looks * self._interval


class Settling:
    """For how long the same message has been in one state, seen by regular looks."""

    def __init__(self) -> None:
        self._looks: dict[Hashable, int] = {}

    def look(self, open: Iterable[Hashable]) -> int:
        """Look once more; at how many looks the oldest was there already."""
        before = self._looks
        self._looks = {each: before.get(each, -1) + 1 for each in open}
        return max(self._looks.values(), default=0)


class Hunger:
    """Whether a subscription reads nothing although messages wait.

    :param stalled: Seconds after which that counts; within these it is asked
        :data:`LOOKS` times how many wait.
    """

    def __init__(self, stalled: float) -> None:
        self._period = stalled / LOOKS
        self._received = -1
        self._idle_since = 0.0
        self._found = 0
        self.backlog = 0

    @property
    def seconds(self) -> float:
        """For how long messages have waited and none was read."""
        return self._found * self._period

    def look(self, now: float, received: int, idle: bool) -> bool:
        """Note what it does; whether it is time to ask the broker.

        :param received: How many messages it has read so far.
        :param idle: Whether it has nothing to do.
        """
        if received != self._received or not idle:
            self._received, self._idle_since = received, now
            self._found = self.backlog = 0
        return now - self._idle_since >= self._period

    def found(self, now: float, backlog: int) -> None:
        """The broker's answer: so many wait."""
        self.backlog = backlog
        self._found = self._found + 1 if backlog else 0
        self._idle_since = now


def together(verdicts: Mapping[str, Verdict | None]) -> Verdict:
    """One verdict for several processes, by what to call them.

    ``None`` stands for one that does not run at the moment, or says nothing yet.
    """
    troubles: list[Trouble] = []
    for name, verdict in verdicts.items():
        if verdict is None:
            text = f"{name}: not running yet."
            troubles.append(Trouble("absent", name, text, logged=False))
        else:
            troubles += [
                replace(each, about=name, text=f"{name}: {each.text}")
                for each in verdict.troubles
            ]
    told = [verdict for verdict in verdicts.values() if verdict is not None]
    live = all(verdict.live for verdict in told)
    ready = len(told) == len(verdicts) and all(verdict.ready for verdict in told)
    lanes = _together(lane for verdict in told for lane in verdict.lanes)
    return Verdict(live, ready, tuple(troubles), lanes=lanes)


def _together(lanes: Iterable[Lane]) -> tuple[Lane, ...]:
    """They look at one lane each from their side: the largest figures count."""
    found: dict[str, Lane] = {}
    for lane in lanes:
        known = found.get(lane.consumer, lane)
        found[lane.consumer] = Lane(
            lane.consumer,
            _largest(lane.waiting, known.waiting),
            _largest(lane.oldest, known.oldest),
        )
    return tuple(found.values())


def _largest(one: N | None, other: N | None) -> N | None:
    return max((each for each in (one, other) if each is not None), default=None)
