"""In place of Loki: an HTTP server that keeps the records that the Collector sends."""

from __future__ import annotations

import gzip
import http.server
import threading
import typing as t

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2


class LogBackend(http.server.ThreadingHTTPServer):
    """Keeps log records, each with the name of its service."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lines: list[tuple[str, t.Any]] = []
        self._thread = threading.Thread(target=self.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> LogBackend:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def take(self, body: bytes) -> None:
        logs = logs_service_pb2.ExportLogsServiceRequest.FromString(body)
        for resource in logs.resource_logs:
            for scope in resource.scope_logs:
                self.lines += [(name_service(resource), r) for r in scope.log_records]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LogBackend

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: t.Any) -> None:
        """Say nothing."""


def name_service(resource: t.Any) -> str:
    """Return the name of the service that a record belongs to."""
    found = {each.key: each.value.string_value for each in resource.resource.attributes}
    return found.get("service.name", "")
