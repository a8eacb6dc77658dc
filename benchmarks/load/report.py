"""Results of the trials as tables of text, in the syntax of reStructuredText."""

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

#: Seconds at the beginning of a step that do not count, while its customers arrive.
_SETTLING_SECONDS = 2.0

#: Seconds that one row of the CSV file covers.
_ROW_SECONDS = 2.0


class Step:
    """The part of a trial with a certain number of customers."""

    def __init__(self, trial: Trial, customers: int) -> None:
        requests = [each for each in trial.requests if each.customers == customers]
        self._begin = requests[0].at + _SETTLING_SECONDS
        self._end = requests[-1].at
        self._requests = [each for each in requests if each.at >= self._begin]
        readings = [
            each for each in trial.readings if self._begin <= each.at <= self._end
        ]
        self._first, self._last = (
            (readings[0], readings[-1]) if readings else (None, None)
        )

    @property
    def rate(self) -> float:
        """Requests answered per second."""
        return len(self._requests) / (self._end - self._begin)

    @property
    def p50(self) -> float:
        """Milliseconds within which half of the requests were answered."""
        return quantile(self._requests, 0.5)

    @property
    def p99(self) -> float:
        """Milliseconds within which 99 per cent of the requests were answered."""
        return quantile(self._requests, 0.99)

    @property
    def failed(self) -> int:
        """Number of requests that failed."""
        return sum(request.failed for request in self._requests)

    @property
    def handled(self) -> float:
        """Messages handled per second."""
        if self._first is None or self._last is None or self._first is self._last:
            return 0.0
        seconds = self._last.at - self._first.at
        return (self._last.handled - self._first.handled) / seconds

    @property
    def lag(self) -> int:
        """Number of messages that waited at the end of the step."""
        return 0 if self._last is None else self._last.lag


def quantile(requests: Sequence[Request], part: float) -> float:
    """Milliseconds within which a part of the requests (0 to 1) was answered."""
    ordered = sorted(request.milliseconds for request in requests)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def format_trial(trial: Trial) -> str:
    """Describe the last step of a trial in one line."""
    step = Step(trial, _max_customers(trial))
    return (
        f"{trial.round}. {trial.mode}: {step.rate:.0f} requests/s,"
        f" p50 {step.p50:.0f} ms, p99 {step.p99:.0f} ms,"
        f" {step.handled:.0f} messages/s, {step.failed} failed"
    )


def _max_customers(trial: Trial) -> int:
    """The number of customers in the last step, which has the most."""
    return trial.requests[-1].customers


def render_tables(trials: Sequence[Trial]) -> str:
    """Return two tables: one of the last step, one of all steps."""
    return "\n\n".join(
        [
            _format_table(_rows_of_last_step(trials)),
            _format_table(_rows_of_all_steps(trials)),
        ]
    )


def _rows_of_last_step(trials: Sequence[Trial]) -> Iterator[list[str]]:
    yield ["", "requests/s", "p50 ms", "p99 ms", "p99, times alone", "messages/s"]
    most = _max_customers(trials[0])
    alone = _steps(trials, ALONE, most)
    for mode in MODES:
        steps = _steps(trials, mode, most)
        times = [a.p99 / b.p99 for a, b in zip(steps, alone, strict=True)]
        yield [
            mode,
            _format_spread([step.rate for step in steps]),
            _format_spread([step.p50 for step in steps]),
            _format_spread([step.p99 for step in steps]),
            _format_spread(times, 2),
            _format_spread([step.handled for step in steps]),
        ]


def _rows_of_all_steps(trials: Sequence[Trial]) -> Iterator[list[str]]:
    yield ["customers", "", "p50 ms", "p99 ms", "messages/s", "lag"]
    steps = dict.fromkeys(request.customers for request in trials[0].requests)
    for customers in steps:
        for mode in MODES:
            found = _steps(trials, mode, customers)
            figures = [
                _median(found, name) for name in ("p50", "p99", "handled", "lag")
            ]
            yield [str(customers), mode, *figures]


def _median(steps: Sequence[Step], name: str) -> str:
    return f"{statistics.median(getattr(step, name) for step in steps):.0f}"


def _steps(trials: Sequence[Trial], mode: str, customers: int) -> list[Step]:
    return [Step(trial, customers) for trial in trials if trial.mode == mode]


def _format_spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median, and in brackets the lowest and the highest value."""
    low, high = min(values), max(values)
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} – {high:.{digits}f})"


def _format_table(rows: t.Iterable[list[str]]) -> str:
    head, *others = rows
    widths = [
        max(len(cell) for cell in column) for column in zip(head, *others, strict=True)
    ]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *others)]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def write_csv(path: pathlib.Path, trials: Sequence[Trial]) -> None:
    """Write all trials to a CSV file, with a row for every two seconds."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["mode", "round", "second", "customers", "p50", "p99", "handled", "lag"]
        )
        for trial in trials:
            writer.writerows(_csv_rows(trial))


def _csv_rows(trial: Trial) -> Iterator[list[t.Any]]:
    begin = trial.requests[0].at

    def number_of(at: float) -> int:
        return int((at - begin) / _ROW_SECONDS)

    for number in range(number_of(trial.requests[-1].at)):
        requests = [each for each in trial.requests if number_of(each.at) == number]
        readings = [
            reading for reading in trial.readings if number_of(reading.at) <= number
        ]
        if requests:
            yield [
                trial.mode,
                trial.round,
                number * _ROW_SECONDS,
                requests[0].customers,
                f"{quantile(requests, 0.5):.1f}",
                f"{quantile(requests, 0.99):.1f}",
                readings[-1].handled if readings else "",
                readings[-1].lag if readings else "",
            ]
