"""A collector of OTLP over HTTP, in the test's own process."""

from __future__ import annotations

import contextlib
import gzip
import typing as t
from collections.abc import Iterator

from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)


class Collector:
    """Keeps what exporters send; with ``silent``, never answers."""

    def __init__(self, *, silent: bool = False) -> None:
        self.spans: list[t.Any] = []
        self.scopes: list[t.Any] = []
        self.requests = 0
        self.answered = 0
        self._go_on = Event()
        if not silent:
            self._go_on.set()

    def __call__(self, environ: t.Any, start_response: t.Any) -> list[bytes]:
        data = environ["wsgi.input"].read()
        self.requests += 1
        if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
            data = gzip.decompress(data)
        self._keep(ExportTraceServiceRequest.FromString(data))
        self._go_on.wait()
        self.answered += 1
        start_response("200 OK", [("Content-Type", "application/x-protobuf")])
        return [ExportTraceServiceResponse().SerializeToString()]

    def _keep(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.scopes.append(scope)
                self.spans += scope.spans

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """Serve on a free port; yield the endpoint's URL."""
        # The end of a pooled server ends its connections, which clients keep open.
        server = WSGIServer(("127.0.0.1", 0), self, log=None, spawn=Pool())
        server.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces"
        finally:
            self._go_on.set()
            server.stop(timeout=1)
