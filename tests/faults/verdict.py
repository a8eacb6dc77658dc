"""Which fault is to be charged with what happened. Pure, as the checker is."""

from __future__ import annotations

import bisect
import time
import typing as t
from collections.abc import Sequence

from .check import Tally
from .check import longest_silence
from .record import FaultRecord


def judge_faults(
    faults: Sequence[FaultRecord], tally: Tally, began: float, bound: int
) -> None:
    """Charge each fault with what happened from its beginning to the next one's.

    :param began: When the run did.
    :param bound: How much may be handled again when all is cut off once.
    """
    begins = [began + each.began for each in faults]
    for fault, since, until in zip(
        faults, begins, [*begins[1:], time.time()], strict=False
    ):
        fault.messages = _within(tally.confirmed.values(), since, until)
        fault.duplicated = _within(tally.again, since, until)
        fault.bound = fault.returns * bound
        last = max(tally.times, default=since)
        fault.silence = longest_silence(tally.times, since, min(until, last))


def charge(
    faults: Sequence[FaultRecord],
    tally: Tally,
    began: float,
    lost: t.Collection[int],
    excused: t.Mapping[int, int],
) -> None:
    """Charge what is lost to the fault that was over next after it was confirmed.

    :param excused: What a fault that is told to lose something was seen to take, and
        the index of that fault.
    """
    overs = [began + each.began + each.lasted for each in faults]
    for n in lost if faults else ():
        found = bisect.bisect_left(overs, tally.confirmed[n])
        faults[excused.get(n, min(found, len(faults) - 1))].lost += 1


def _within(times: t.Iterable[float], since: float, until: float) -> int:
    return sum(since <= at < until for at in times)
