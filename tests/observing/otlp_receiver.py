"""A collector of metrics by OTLP over HTTP, in the test's own process."""

from __future__ import annotations

import contextlib
import gzip
import typing as t
from collections.abc import Iterator

from gevent.event import Event
from gevent.pywsgi import WSGIServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from prometheus_client.utils import floatToGoString

from .samples import Samples


class Push(t.NamedTuple):
    """One request: the process, its resource, its metrics."""

    pid: int
    resource: dict[str, str]
    metrics: dict[str, t.Any]

    @property
    def samples(self) -> Samples:
        """The values as a scrape shows them."""
        return dict(_list_samples(self.metrics.values()))


class MetricReceiver:
    """Keeps what exporters push, and answers with ``status``; with ``silent``, never.

    The exporter says its process in the header ``x-pid``.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.pushes: list[Push] = []
        #: Requests that were answered with an error.
        self.refused = 0
        self.requests = 0
        self.status = "200 OK"
        self._go_on = Event()
        if not silent:
            self._go_on.set()

    def __call__(self, environ: t.Any, start_response: t.Any) -> list[bytes]:
        data = environ["wsgi.input"].read()
        self.requests += 1
        self._go_on.wait()
        if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
            data = gzip.decompress(data)
        if self.status.startswith("200"):
            self._keep(int(environ.get("HTTP_X_PID", "0")), data)
        else:
            self.refused += 1
        start_response(self.status, [("Content-Type", "application/x-protobuf")])
        return [ExportMetricsServiceResponse().SerializeToString()]

    def _keep(self, pid: int, data: bytes) -> None:
        (found,) = ExportMetricsServiceRequest.FromString(data).resource_metrics
        (scope,) = found.scope_metrics
        assert scope.scope.name == "flask_qconsume"
        metrics = {metric.name: metric for metric in scope.metrics}
        self.pushes.append(Push(pid, _read(found.resource.attributes), metrics))

    @contextlib.contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve, by default on a free port; yield the endpoint's URL."""
        server = WSGIServer(("127.0.0.1", port), self, log=None)
        server.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/metrics"
        finally:
            self._go_on.set()
            server.stop(timeout=1)


def _read(attributes: t.Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes}


def _list_samples(metrics: t.Iterable[t.Any]) -> Iterator[tuple[t.Any, float]]:
    for metric in metrics:
        for point in metric.gauge.data_points or metric.sum.data_points:
            labels = tuple(_read(point.attributes).values())
            yield (metric.name, labels), getattr(point, point.WhichOneof("value"))
        for point in metric.histogram.data_points:
            labels = tuple(_read(point.attributes).values())
            yield (f"{metric.name}_count", labels), point.count
            yield (f"{metric.name}_sum", labels), point.sum
            bounds = [*map(floatToGoString, point.explicit_bounds), "+Inf"]
            total = 0
            for bound, count in zip(bounds, point.bucket_counts, strict=True):
                total += count
                yield (f"{metric.name}_bucket", (*labels, bound)), total
