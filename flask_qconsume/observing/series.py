"""Series of metrics: one metric with one set of label values, and its numbers."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable

from .metric_table import Metric


class Series(t.NamedTuple):
    """The numbers of one metric with one set of label values.

    A counter or a gauge has one number. A histogram has the count of each bucket, not
    cumulated, the count beyond the last bound, and the sum of all values.
    """

    name: str
    labels: tuple[str, ...]
    #: The upper bounds of a histogram's buckets; empty for a counter or a gauge.
    bounds: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def key(self) -> SeriesKey:
        """The identity of the series, which is the same in all processes."""
        return self.name, self.labels, self.bounds


SeriesKey = tuple[str, tuple[str, ...], tuple[float, ...]]


def make_gauge(metric: Metric, value: float, *labels: str) -> Series:
    """Create the series of a gauge.

    :param metric: A gauge of :mod:`.metric_table`.
    :param value: Its value, in the metric's unit.
    :param labels: The values of the metric's labels, in the order of the table.
    :raises ValueError: if the metric has a different number of labels.
    """
    if len(labels) != len(metric.labels):
        raise ValueError(f"'{metric.name}' has the labels {metric.labels}.")
    return Series(metric.name, labels, (), (float(value),))


def add_up(series: Iterable[Series]) -> list[Series]:
    """Add up the numbers of equal series."""
    sums: dict[SeriesKey, tuple[float, ...]] = {}
    for each in series:
        known = sums.get(each.key)
        if known is not None and len(known) == len(each.values):
            sums[each.key] = tuple(map(sum, zip(known, each.values, strict=True)))
        else:
            sums[each.key] = each.values
    return [Series(*key, values) for key, values in sums.items()]
