"""What an app's metrics show."""

from __future__ import annotations

from flask import Flask

from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.metrics import get_metrics


def metrics_of(app: Flask) -> Metrics:
    """Return the metrics of an app that has them."""
    found = get_metrics(app)
    assert found is not None
    return found


def read_gauges(metrics: Metrics) -> dict[str, float]:
    """Return the gauges by their names, without the prefix, and their labels."""
    return {
        ":".join((series.name.removeprefix("qconsume_"), *series.labels)): value
        for gauges in metrics.read().gauges
        for series in gauges.series
        for value in series.values
    }


def read_counts(metrics: Metrics) -> dict[str, float]:
    """Return the counts by their names, without the prefix, and their labels."""
    return {
        ":".join((series.name.removeprefix("qconsume_"), *series.labels)): value
        for series in metrics.read().counts
        for value in series.values
    }
