"""Traces by OpenTelemetry, sent by OTLP if ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set.

The SDK reads variables of its own, such as ``OTEL_SERVICE_NAME``. Its packages are in
``deploy/requirements.txt``.
"""

from __future__ import annotations

import os

from flask import Flask


def init_app(app: Flask) -> None:
    """Export the spans of requests and messages, if there is an address for them."""
    if "OTEL_EXPORTER_OTLP_ENDPOINT" not in os.environ:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    FlaskInstrumentor().instrument_app(app)
