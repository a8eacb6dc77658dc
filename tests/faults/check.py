"""Judges a run by its ledgers: lost, duplicated, out of order, and silent for how long.

Pure: knows neither processes nor brokers.
"""

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

#: Seconds by which a clock is wrong: no run is silent for so long.
CLOCK = 900.0


@dataclass
class Tally:
    """What happened to each number, from lines as they come."""

    #: When each number was confirmed.
    confirmed: dict[int, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    #: How often each was handled to the end.
    handled: Counter[int] = field(default_factory=Counter)
    #: When something was handled, and when something was handled again.
    times: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    #: The highest number that each process handled, and when it handled numbers.
    latest: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, lines: Iterable[Line]) -> None:
        """Take lines in, of whichever kind and ledger."""
        for line in lines:
            take = _TAKES.get(line.what)
            if take is not None:
                take(self, line)

    @property
    def open(self) -> int:
        """How many are confirmed and not handled, about."""
        return len(self.confirmed) - len(self.handled)

    def missing(self) -> set[int]:
        """What is confirmed and was never handled."""
        return self.confirmed.keys() - self.handled.keys()

    def reached(self, pid: int, number: int) -> float | None:
        """When a process first handled that number or a later one."""
        records = self.latest.get(pid, [])
        at = bisect.bisect_left(records, (number, 0.0))
        return records[at][1] if at < len(records) else None


def _confirm(tally: Tally, line: Line) -> None:
    tally.confirmed[line.n] = line.at


def _refuse(tally: Tally, line: Line) -> None:
    tally.refused.add(line.n)


def _handle(tally: Tally, line: Line) -> None:
    at = _when(tally, line)
    tally.handled[line.n] += 1
    tally.times.append(at)
    if tally.handled[line.n] > 1:
        tally.again.append(at)
    records = tally.latest.setdefault(line.pid, [])
    if not records or line.n > records[-1][0]:
        records.append((line.n, at))


def _when(tally: Tally, line: Line) -> float:
    """When it was written; a worker whose clock was set knows less than its neighbour.

    Lines come in the order in which they were written.
    """
    last = tally.times[-1] if tally.times else line.at
    return line.at if abs(line.at - last) < CLOCK else last


_TAKES: dict[str, Callable[[Tally, Line], None]] = {
    "confirmed": _confirm,
    "refused": _refuse,
    "done": _handle,
}


def longest_silence(times: Sequence[float], since: float, until: float) -> float:
    """The longest time in which nothing was handled, in seconds.

    :param times: When something was, in any order.
    """
    inside = sorted(at for at in times if since <= at <= until)
    ends = [since, *inside, until]
    return max(later - earlier for earlier, later in itertools.pairwise(ends))


def out_of_order(
    lines: Iterable[Line], confirmed: t.Collection[int], keys: int
) -> list[int]:
    """The numbers that began before an earlier one of their key was done.

    One that was refused may never have been there, so nobody has to wait for it.

    :param keys: A number's key is its remainder by this.
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
