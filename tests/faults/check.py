"""Evaluation of a run's ledgers: losses, duplicates, order and the longest silence."""

from __future__ import annotations

import bisect
import itertools
import typing as t
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from ..fleet.ledger import Line

#: Seconds: a larger gap between two lines comes from a clock that was set.
CLOCK = 900.0


@dataclass
class Tally:
    """The fate of each message number, from the lines of ledgers."""

    #: Time at which each number was confirmed.
    confirmed: dict[int, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    #: How often each number was handled completely.
    handled: Counter[int] = field(default_factory=Counter)
    #: Times at which a message was handled, and at which one was handled again.
    times: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    #: For each process the growing maximum of its numbers, with times.
    latest: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, lines: Iterable[Line]) -> None:
        """Add lines of any kind and ledger."""
        for line in lines:
            take = _TAKES.get(line.what)
            if take is not None:
                take(self, line)

    @property
    def open(self) -> int:
        """Approximate number of confirmed messages that are not handled."""
        return len(self.confirmed) - len(self.handled)

    def missing(self) -> set[int]:
        """Return the numbers that are confirmed and were never handled."""
        return self.confirmed.keys() - self.handled.keys()

    def reached(self, pid: int, number: int) -> float | None:
        """Return the time at which a process first handled this or a later number."""
        records = self.latest.get(pid, [])
        at = bisect.bisect_left(records, (number, 0.0))
        return records[at][1] if at < len(records) else None


def _confirm(tally: Tally, line: Line) -> None:
    tally.confirmed[line.n] = line.at


def _refuse(tally: Tally, line: Line) -> None:
    tally.refused.add(line.n)


def _handle(tally: Tally, line: Line) -> None:
    at = _find_time(tally, line)
    tally.handled[line.n] += 1
    tally.times.append(at)
    if tally.handled[line.n] > 1:
        tally.again.append(at)
    records = tally.latest.setdefault(line.pid, [])
    if not records or line.n > records[-1][0]:
        records.append((line.n, at))


def _find_time(tally: Tally, line: Line) -> float:
    """Return the time of a line.

    If its worker's clock was set, the time of the line before it is returned.
    """
    last = tally.times[-1] if tally.times else line.at
    return line.at if abs(line.at - last) < CLOCK else last


_TAKES: dict[str, Callable[[Tally, Line], None]] = {
    "confirmed": _confirm,
    "refused": _refuse,
    "done": _handle,
}


def find_longest_silence(times: Sequence[float], since: float, until: float) -> float:
    """Return the longest time without a handled message, in seconds.

    :param times: Times of handled messages, in any order.
    """
    inside = sorted(at for at in times if since <= at <= until)
    ends = [since, *inside, until]
    return max(later - earlier for earlier, later in itertools.pairwise(ends))


def find_out_of_order(
    lines: Iterable[Line], confirmed: t.Collection[int], keys: int
) -> list[int]:
    """Return the numbers that began before an earlier one of their key was done.

    Refused messages are left out, since they may not exist.

    :param keys: Number of keys; a number's key is its remainder by this.
    """
    waiting = {
        key: sorted(n for n in confirmed if n % keys == key) for key in range(keys)
    }
    at = dict.fromkeys(waiting, 0)
    done: set[int] = set()
    found = []
    for line in lines:
        key = line.n % keys
        if line.what == "done":
            done.add(line.n)
            while at[key] < len(waiting[key]) and waiting[key][at[key]] in done:
                at[key] += 1
        elif line.what == "start":
            first = waiting[key][at[key]] if at[key] < len(waiting[key]) else line.n
            if first < line.n:
                found.append(line.n)
    return found
