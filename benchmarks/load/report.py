"""What the trials say: tables of text, which are also tables of reStructuredText."""

from __future__ import annotations

import csv
import math
import pathlib
import statistics
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from .trial import ALONE
from .trial import MODES
from .trial import Request
from .trial import Trial

#: Seconds after the begin of a step that do not count: the customers are coming.
_SETTLING = 2.0

#: Seconds that one row of the CSV file is about.
_ROW = 2.0


class Step:
    """One trial while there were so many customers."""

    def __init__(self, trial: Trial, customers: int) -> None:
        requests = [each for each in trial.requests if each.customers == customers]
        self._begin = requests[0].at + _SETTLING
        self._end = requests[-1].at
        self._requests = [each for each in requests if each.at >= self._begin]
        looks = [each for each in trial.looks if self._begin <= each.at <= self._end]
        self._first, self._last = (looks[0], looks[-1]) if looks else (None, None)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self._requests) / (self._end - self._begin)

    @property
    def p50(self) -> float:
        """Milliseconds in which half of the requests were answered."""
        return quantile(self._requests, 0.5)

    @property
    def p99(self) -> float:
        """Milliseconds in which all but one in a hundred were."""
        return quantile(self._requests, 0.99)

    @property
    def failed(self) -> int:
        """How many requests were."""
        return sum(request.failed for request in self._requests)

    @property
    def handled(self) -> float:
        """Messages a second."""
        if self._first is None or self._last is None or self._first is self._last:
            return 0.0
        seconds = self._last.at - self._first.at
        return (self._last.handled - self._first.handled) / seconds

    @property
    def lag(self) -> int:
        """How many messages waited in the end."""
        return 0 if self._last is None else self._last.lag


def quantile(requests: Sequence[Request], part: float) -> float:
    """Milliseconds within which that part of the requests was answered."""
    ordered = sorted(request.milliseconds for request in requests)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def line(trial: Trial) -> str:
    """A trial's last step in one line."""
    step = Step(trial, _most(trial))
    return (
        f"{trial.round}. {trial.mode}: {step.rate:.0f} requests/s,"
        f" p50 {step.p50:.0f} ms, p99 {step.p99:.0f} ms,"
        f" {step.handled:.0f} messages/s, {step.failed} failed"
    )


def _most(trial: Trial) -> int:
    """The customers of the last step."""
    return trial.requests[-1].customers


def rendered(trials: Sequence[Trial]) -> str:
    """Both tables: the last step, and all of them."""
    return "\n\n".join([_table(_last(trials)), _table(_ramp(trials))])


def _last(trials: Sequence[Trial]) -> Iterator[list[str]]:
    yield ["", "requests/s", "p50 ms", "p99 ms", "p99, times alone", "messages/s"]
    most = _most(trials[0])
    alone = _steps(trials, ALONE, most)
    for mode in MODES:
        steps = _steps(trials, mode, most)
        times = [a.p99 / b.p99 for a, b in zip(steps, alone, strict=True)]
        yield [
            mode,
            _spread([step.rate for step in steps]),
            _spread([step.p50 for step in steps]),
            _spread([step.p99 for step in steps]),
            _spread(times, 2),
            _spread([step.handled for step in steps]),
        ]


def _ramp(trials: Sequence[Trial]) -> Iterator[list[str]]:
    yield ["customers", "", "p50 ms", "p99 ms", "messages/s", "lag"]
    steps = dict.fromkeys(request.customers for request in trials[0].requests)
    for customers in steps:
        for mode in MODES:
            found = _steps(trials, mode, customers)
            figures = [_of(found, name) for name in ("p50", "p99", "handled", "lag")]
            yield [str(customers), mode, *figures]


def _of(steps: Sequence[Step], name: str) -> str:
    return f"{statistics.median(getattr(step, name) for step in steps):.0f}"


def _steps(trials: Sequence[Trial], mode: str, customers: int) -> list[Step]:
    return [Step(trial, customers) for trial in trials if trial.mode == mode]


def _spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, and the lowest and the highest."""
    low, high = min(values), max(values)
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} – {high:.{digits}f})"


def _table(rows: t.Iterable[list[str]]) -> str:
    head, *others = rows
    widths = [
        max(len(cell) for cell in column) for column in zip(head, *others, strict=True)
    ]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *others)]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def write(path: pathlib.Path, trials: Sequence[Trial]) -> None:
    """All trials as CSV, a row for every two seconds."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["mode", "round", "second", "customers", "p50", "p99", "handled", "lag"]
        )
        for trial in trials:
            writer.writerows(_rows(trial))


def _rows(trial: Trial) -> Iterator[list[t.Any]]:
    begin = trial.requests[0].at

    def number_of(at: float) -> int:
        return int((at - begin) / _ROW)

    for number in range(number_of(trial.requests[-1].at)):
        requests = [each for each in trial.requests if number_of(each.at) == number]
        looks = [look for look in trial.looks if number_of(look.at) <= number]
        if requests:
            yield [
                trial.mode,
                trial.round,
                number * _ROW,
                requests[0].customers,
                f"{quantile(requests, 0.5):.1f}",
                f"{quantile(requests, 0.99):.1f}",
                looks[-1].handled if looks else "",
                looks[-1].lag if looks else "",
            ]
