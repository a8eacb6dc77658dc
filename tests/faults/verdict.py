"""Attribution of losses, duplicates and silences to the faults of a run."""

from __future__ import annotations

import bisect
import time
import typing as t
from collections.abc import Sequence

from .check import Tally
from .check import find_longest_silence
from .record import FaultRecord


def judge_faults(
    faults: Sequence[FaultRecord], tally: Tally, began: float, bound: int
) -> None:
    """Add to each fault what happened from its beginning to that of the next fault.

    :param began: Time at which the run began.
    :param bound: Messages that may be handled again when all connections are lost once.
    """
    begins = [began + each.began for each in faults]
    for fault, since, until in zip(
        faults, begins, [*begins[1:], time.time()], strict=False
    ):
        fault.messages = _count_within(tally.confirmed.values(), since, until)
        fault.duplicated = _count_within(tally.again, since, until)
        fault.bound = fault.returns * bound
        last = max(tally.times, default=since)
        fault.silence = find_longest_silence(tally.times, since, min(until, last))


def attribute_losses(
    faults: Sequence[FaultRecord],
    tally: Tally,
    began: float,
    lost: t.Collection[int],
    excused: t.Mapping[int, int],
) -> None:
    """Attribute each lost message to the first fault that ended after its confirmation.

    :param excused: Messages lost by a fault that may lose messages, with its index.
    """
    overs = [began + each.began + each.lasted for each in faults]
    for n in lost if faults else ():
        found = bisect.bisect_left(overs, tally.confirmed[n])
        faults[excused.get(n, min(found, len(faults) - 1))].lost += 1


def _count_within(times: t.Iterable[float], since: float, until: float) -> int:
    return sum(since <= at < until for at in times)
