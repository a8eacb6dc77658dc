"""What the trials say, as tables of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .trial import Plan
from .trial import Trial

#: Seconds after the begin of a step that do not count: the customers are coming.
_SETTLING = 2.0


def line(trial: Trial) -> str:
    """A trial's last step in one line."""
    step = Step(trial, trial.requests[-1].customers)
    return (
        f"{trial.round}. {trial.mode}: {step.rate:.0f} requests/s,"
        f" p50 {step.quantile(0.5):.1f} ms, p99 {step.quantile(0.99):.1f} ms,"
        f" {step.handled:.0f} messages/s, {step.failed} failed"
    )


class Step:
    """One trial, while there were so many customers."""

    def __init__(self, trial: Trial, customers: int) -> None:
        all_ = [each for each in trial.requests if each.customers == customers]
        begin = all_[0].at + _SETTLING
        self._requests = [each for each in all_ if each.at >= begin]
        self._begin, self._end = begin, all_[-1].at
        self._looks = [o for o in trial.looks if begin <= o.at <= self._end]

    @property
    def rate(self) -> float:
        return len(self._requests) / (self._end - self._begin)

    @property
    def failed(self) -> int:
        return sum(request.failed for request in self._requests)

    @property
    def handled(self) -> float:
        """Messages a second."""
        if len(self._looks) < 2:
            return 0.0
        first, last = self._looks[0], self._looks[-1]
        return (last.handled - first.handled) / (last.at - first.at)

    def quantile(self, part: float) -> float:
        """Milliseconds within which that part of the requests was answered."""
        ordered = sorted(request.milliseconds for request in self._requests)
        return ordered[math.ceil(part * len(ordered)) - 1]


def rendered(plan: Plan, trials: Sequence[Trial]) -> str:
    return ""
