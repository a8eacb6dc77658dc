"""The metrics as ``prometheus-client`` knows them: a collector, and its text.

``prometheus_client`` is imported at the first scrape and not before: when it is
imported, it decides by the environment whether the app's own metrics are kept by
several processes.
"""

from __future__ import annotations

import itertools
import time
import typing as t
from collections.abc import Iterator

from flask import Flask

from .metric_families import MetricFamily
from .metric_families import group_by_metric
from .metrics import Metrics
from .metrics import get_metrics
from .series import Series

#: A metric of ``prometheus_client`` with its samples.
Family = t.Any

#: Seconds for which an answer is given again, so that frequent scrapes cost little.
_CACHED_SECONDS = 1.0

#: The key of an app's :class:`Exposition` in ``app.extensions``.
_KEY = "qconsume_exposition"

_PLAIN = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Collector:
    """A collector for a registry of ``prometheus_client``.

    :param metrics: The metrics of an app: :func:`.get_metrics`.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        """Yield a family of samples for each metric that has some."""
        with_pid = self._metrics.folder is not None
        for family in group_by_metric(self._metrics.read(), with_pid=with_pid):
            yield _make_family(family)

    def describe(self) -> Iterator[Family]:
        """Yield nothing: a registry then checks no names when this is registered."""
        return iter(())


class Exposition:
    """The text of a scrape, in Prometheus' format or in OpenMetrics.

    Any thread may use it. It never waits for another one.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._collector = Collector(metrics)
        # Now, since a native thread should not wait for an import.
        self._encoders = _import_encoders()
        #: Answers by content type, with the time at which they are too old.
        self._answers: dict[str, tuple[float, bytes]] = {}

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and the body of an answer, at most a second old.

        :param accept: The request's header ``Accept``.
        """
        kind = _OPENMETRICS if "application/openmetrics-text" in accept else _PLAIN
        until, body = self._answers.get(kind, (0.0, b""))
        if until <= time.monotonic():
            body = self._encoders[kind](self._collector)
            self._answers[kind] = (time.monotonic() + _CACHED_SECONDS, body)
        return kind, body


def get_exposition(app: Flask) -> Exposition | None:
    """Return the exposition of an app; ``None`` unless ``QCONSUME_METRICS`` is set."""
    found: Exposition | None = app.extensions.get(_KEY)
    metrics = get_metrics(app)
    if found is None and metrics is not None:
        found = app.extensions[_KEY] = Exposition(metrics)
    return found


def _import_encoders() -> dict[str, t.Any]:
    from prometheus_client import generate_latest
    from prometheus_client.openmetrics import exposition as openmetrics

    return {_PLAIN: generate_latest, _OPENMETRICS: openmetrics.generate_latest}


def _make_family(family: MetricFamily) -> Family:
    from prometheus_client.core import CounterMetricFamily
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.core import HistogramMetricFamily

    metric, labels, found = family
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for series in found:
            histogram.add_metric(series.labels, _cumulate(series), series.values[-1])
        return histogram
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    numbers = make(metric.name, metric.help, labels=labels)
    for series in found:
        numbers.add_metric(series.labels, series.values[0])
    return numbers


def _cumulate(series: Series) -> list[tuple[str, float]]:
    from prometheus_client.utils import floatToGoString

    bounds = [*map(floatToGoString, series.bounds), "+Inf"]
    counts = itertools.accumulate(series.values[:-1])
    return list(zip(bounds, counts, strict=True))
