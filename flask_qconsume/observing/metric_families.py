"""The series of a snapshot, grouped by metric, as every exporter writes them."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

from .metric_folder import ProcessGauges
from .metric_folder import Snapshot
from .metric_table import BY_NAME
from .metric_table import TABLE
from .metric_table import Metric
from .series import Series


class MetricFamily(t.NamedTuple):
    """A metric with all its series, of which there is at least one."""

    metric: Metric
    #: The names of the labels, whose values the series have. Gauges of a process may
    #: have the label ``pid`` besides those of the table.
    labels: tuple[str, ...]
    series: list[Series]


def group_by_metric(snapshot: Snapshot, *, with_pid: bool) -> Iterator[MetricFamily]:
    """Yield the metrics that have series, in the order of the table.

    Series of a metric that this version does not know, or knows otherwise, are left
    out: another process may run another version.

    :param with_pid: Whether the gauges of a process have the label ``pid``.
    """
    counts: dict[str, list[Series]] = {}
    for series in filter(_is_known, snapshot.counts):
        counts.setdefault(series.name, []).append(series)
    for metric in TABLE:
        labels, found = metric.labels, counts.get(metric.name, [])
        if metric.kind == "gauge":
            pid = with_pid and metric.per_process
            labels = (*labels, "pid") if pid else labels
            found = _select_gauges(metric, snapshot.gauges, pid)
        if found:
            yield MetricFamily(metric, labels, found)


def _select_gauges(
    metric: Metric, shown: Iterable[ProcessGauges], pid: bool
) -> list[Series]:
    """Return the series of a gauge; of several equal ones, the newest."""
    found: dict[tuple[str, ...], Series] = {}
    for process in sorted(shown, key=lambda each: each.time):
        for series in process.series:
            if series.name == metric.name and _is_known(series):
                labels = series.labels + ((str(process.pid),) if pid else ())
                found[labels] = series._replace(labels=labels)
    return list(found.values())


def _is_known(series: Series) -> bool:
    """Return whether a series fits the table."""
    metric = BY_NAME.get(series.name)
    return (
        metric is not None
        and len(series.labels) == len(metric.labels)
        and series.bounds == metric.buckets
        and len(series.values) == (len(metric.buckets) + 2 if metric.buckets else 1)
    )
