"""The metrics as OpenTelemetry's SDK knows them, and as its exporters send them.

Imported by the code that pushes only, since an app may not have the SDK.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable

from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.export import Gauge
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.sdk.metrics.export import Metric as MetricData
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.metrics.export import NumberDataPoint
from opentelemetry.sdk.metrics.export import ResourceMetrics
from opentelemetry.sdk.metrics.export import ScopeMetrics
from opentelemetry.sdk.metrics.export import Sum
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID
from opentelemetry.sdk.resources import OTELResourceDetector
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ..version import VERSION
from .metric_families import MetricFamily
from .metric_folder import Origin
from .metric_table import Metric
from .series import Series
from .tracing import suppress_clients

#: Creates an exporter of metrics, such as the exporter's class.
CreateExporter = t.Callable[[], MetricExporter]

#: Milliseconds that an exporter may take, as far as it reads this argument.
_EXPORT_MILLISECONDS = 10_000

#: Milliseconds that an exporter may take to shut down, as far as it reads this.
_SHUTDOWN_MILLISECONDS = 100


class OtlpSender:
    """Sends metrics by an exporter of the SDK.

    :param create_exporter: Creates the exporter. It is called at the first push of each
        process, so that no connection is copied by a fork.
    """

    def __init__(self, create_exporter: CreateExporter) -> None:
        self._create = create_exporter
        self._resource = Resource.create()
        #: Whether the user gives each instance an id, such as a pod's name.
        given = OTELResourceDetector().detect().attributes
        self._is_named = SERVICE_INSTANCE_ID in given
        self._scope = InstrumentationScope("flask_qconsume", VERSION)

    def create_exporter(self) -> MetricExporter:
        """Create an exporter, which belongs to this process and this thread."""
        suppress_clients()
        return self._create()

    def send(
        self,
        exporter: MetricExporter,
        families: Iterable[MetricFamily],
        origin: Origin,
        now: float,
    ) -> bool:
        """Send metrics; return whether the collector has taken them.

        :param now: When the metrics were read, in seconds since 1970.
        """
        data = self.make_data(families, origin, now)
        result = exporter.export(data, timeout_millis=_EXPORT_MILLISECONDS)
        return result is MetricExportResult.SUCCESS

    def make_data(
        self, families: Iterable[MetricFamily], origin: Origin, now: float
    ) -> MetricsData:
        """Return metrics as exporters take them, cumulated since the origin."""
        times = _to_nanoseconds(origin.began), _to_nanoseconds(now)
        metrics = [_make_metric(family, *times) for family in families]
        resource = self._resource
        if not self._is_named:
            resource = resource.merge(Resource({SERVICE_INSTANCE_ID: origin.id}))
        scope = ScopeMetrics(self._scope, metrics, "")
        return MetricsData([ResourceMetrics(resource, [scope], resource.schema_url)])


def shut_down(exporter: MetricExporter) -> None:
    """Shut an exporter down, also while another thread waits in it for its answer."""
    exporter.shutdown(timeout_millis=_SHUTDOWN_MILLISECONDS)


def _to_nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _make_metric(family: MetricFamily, began: int, now: int) -> MetricData:
    metric = family.metric
    points = []
    for series in family.series:
        labels = dict(zip(family.labels, series.labels, strict=True))
        points.append(_make_point(metric, labels, series, began, now))
    cumulative = AggregationTemporality.CUMULATIVE
    data: t.Any
    if metric.kind == "counter":
        data = Sum(points, cumulative, is_monotonic=True)
    elif metric.kind == "gauge":
        data = Gauge(points)
    else:
        data = HistogramData(points, cumulative)
    return MetricData(metric.name, metric.help, metric.unit, data)


def _make_point(
    metric: Metric, labels: dict[str, str], series: Series, began: int, now: int
) -> t.Any:
    if metric.kind != "histogram":
        value = series.values[0]
        # A number of things is a whole one.
        number = int(value) if metric.unit.startswith("{") else value
        return NumberDataPoint(labels, began, now, number)
    counts = [int(count) for count in series.values[:-1]]
    return HistogramDataPoint(
        attributes=labels,
        start_time_unix_nano=began,
        time_unix_nano=now,
        count=sum(counts),
        sum=series.values[-1],
        bucket_counts=counts,
        explicit_bounds=series.bounds,
        # Not known. Exporters leave a field out that is None.
        min=t.cast(float, None),
        max=t.cast(float, None),
    )
