"""The verdict on a worker: live or not, ready or not, and its problems. No I/O.

A worker is *live* unless restarting the process would help. A worker repairs a lost
connection itself, so an outage of the broker makes it not *ready* and leaves it live. A
problem that would last until a restart (a blocked event loop, a consumer that reads
nothing although messages wait) makes it not live.
"""

from __future__ import annotations

import json
import logging
import typing as t
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from ...text import escape

N = t.TypeVar("N", int, float)

#: How many problems the JSON text shows at most.
_MAX_PROBLEMS_SHOWN = 10

#: Seconds for which gevent's event loop must be blocked before the JSON text says so.
_MIN_BLOCKED_SECONDS = 2.0


class SuspectBacklog(t.NamedTuple):
    """The number of a consumer's waiting suspects, and the age of the oldest."""

    consumer: str
    #: How many wait in the queue of suspects; ``None`` until the broker has answered.
    waiting: int | None
    #: For how many seconds the oldest has been a suspect, including the one being
    #: handled; ``None`` if there is no suspect or its age is unknown.
    oldest: float | None


@dataclass(frozen=True)
class Problem:
    """One problem of a worker: a text for users, and how grave it is."""

    kind: str
    about: str
    text: str
    #: Whether the process should be restarted.
    fatal: bool = False
    #: Whether to log the problem. Health checks show it in any case.
    logged: bool = True
    level: int = logging.ERROR

    @property
    def key(self) -> tuple[str, str]:
        """A value by which a problem is recognised although its text has changed."""
        return self.kind, self.about


@dataclass(frozen=True)
class Verdict:
    """The answer to health checks: is a worker live, is it ready, what is wrong?"""

    live: bool
    ready: bool
    problems: tuple[Problem, ...] = ()
    #: For how many seconds gevent's event loop has not run.
    blocked_for: float = field(default=0.0, compare=False)
    #: For information only: suspects do not make a worker less live or ready.
    suspects: tuple[SuspectBacklog, ...] = field(default=(), compare=False)

    def to_json(self) -> str:
        """Return the verdict as one line of JSON."""
        wrong = [
            escape(problem.text) for problem in self.problems[:_MAX_PROBLEMS_SHOWN]
        ]
        document: dict[str, t.Any] = {
            "live": self.live,
            "ready": self.ready,
            "wrong": wrong,
        }
        if self.blocked_for >= _MIN_BLOCKED_SECONDS:
            document["blocked"] = round(self.blocked_for, 1)
        if self.suspects:
            document["suspects"] = {
                backlog.consumer: {
                    "waiting": backlog.waiting,
                    "oldest": _round(backlog.oldest),
                }
                for backlog in self.suspects
            }
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Create a verdict from the JSON that :meth:`to_json` has written.

        Of each problem, only the text is kept.

        :raises ValueError: if ``text`` is not a verdict.
        """
        document = json.loads(text)
        try:
            return cls(
                bool(document["live"]),
                bool(document["ready"]),
                tuple(map(_read_problem, document.get("wrong", ()))),
                float(document.get("blocked", 0.0)),
                tuple(
                    SuspectBacklog(consumer, each["waiting"], each["oldest"])
                    for consumer, each in document.get("suspects", {}).items()
                ),
            )
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError("not a verdict") from error


def combine(verdicts: Mapping[str, Verdict | None]) -> Verdict:
    """Combine the verdicts on several processes into one.

    :param verdicts: The verdict on each process by its name; ``None`` for a process
        that does not run at the moment, or has not reported yet.
    """
    problems: list[Problem] = []
    for name, verdict in verdicts.items():
        if verdict is None:
            text = f"{name}: not running yet."
            problems.append(Problem("absent", name, text, logged=False))
        else:
            problems += [
                replace(problem, about=name, text=f"{name}: {problem.text}")
                for problem in verdict.problems
            ]
    known_verdicts = [verdict for verdict in verdicts.values() if verdict is not None]
    live = all(verdict.live for verdict in known_verdicts)
    ready = len(known_verdicts) == len(verdicts) and all(
        verdict.ready for verdict in known_verdicts
    )
    suspects = _combine_suspects(
        backlog for verdict in known_verdicts for backlog in verdict.suspects
    )
    return Verdict(live, ready, tuple(problems), suspects=suspects)


def _combine_suspects(
    backlogs: Iterable[SuspectBacklog],
) -> tuple[SuspectBacklog, ...]:
    """Combine the numbers of suspects that several processes report.

    All processes share a consumer's queue of suspects, so numbers are not added up: the
    largest one is kept.
    """
    combined: dict[str, SuspectBacklog] = {}
    for backlog in backlogs:
        other = combined.get(backlog.consumer, backlog)
        combined[backlog.consumer] = SuspectBacklog(
            backlog.consumer,
            find_largest(backlog.waiting, other.waiting),
            find_largest(backlog.oldest, other.oldest),
        )
    return tuple(combined.values())


def find_largest(*numbers: N | None) -> N | None:
    """Return the largest number of a list in which ``None`` may occur."""
    return max((number for number in numbers if number is not None), default=None)


def _read_problem(text: t.Any) -> Problem:
    return Problem("reported", "", str(text), logged=False)


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
