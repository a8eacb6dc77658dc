"""Push the metrics by OTLP, through an exporter of OpenTelemetry's SDK.

::

    from flask_qconsume.integrations.otlp import push_metrics
    from opentelemetry.exporter.otlp.proto.http import metric_exporter

    push_metrics(app, metric_exporter.OTLPMetricExporter)

Needs the package ``opentelemetry-sdk`` and an exporter, which no extra installs.
"""

from __future__ import annotations

import os
import typing as t

from flask import Flask

from ..appconsumers import get_app_consumers
from ..errors import ConfigurationError
from ..observing.metric_pusher import MetricPusher
from ..observing.metrics import get_metrics
from ..running.grpc_gevent import make_grpc_cooperative
from ..text import quote

if t.TYPE_CHECKING:
    from ..observing.otlp import CreateExporter
    from ..observing.otlp import OtlpSender

#: The key of an app's :class:`.MetricPusher` in ``app.extensions``.
_KEY = "qconsume_metric_pusher"

#: The SDK's variable for the interval, in milliseconds, and its default.
_INTERVAL_VARIABLE = "OTEL_METRIC_EXPORT_INTERVAL"
_INTERVAL_MILLISECONDS = 60_000
_LONGEST_INTERVAL_SECONDS = 86_400.0

#: The SDK's variable that switches all telemetry off.
_DISABLED_VARIABLE = "OTEL_SDK_DISABLED"


def push_metrics(
    app: Flask,
    create_exporter: CreateExporter,
    *,
    interval: float | None = None,
) -> None:
    """Push the metrics of an app every ``interval`` seconds, and once at the end.

    They are those of ``/metrics``, with the same names and labels. Each process pushes
    that runs a worker or publishes; of those that share a metric folder, one pushes the
    sums of all. A worker waits for its last push for two seconds at most. With
    ``OTEL_SDK_DISABLED=true`` in the environment, nothing is pushed.

    :param app: The app with an initialized ``QConsume``. Call this once for each app.
    :param create_exporter: Creates an exporter of OpenTelemetry's SDK for metrics. It
        may be the exporter's class. It is called in the background, once in each
        process that pushes, and the exporter is shut down at the process's end.
    :param interval: Seconds from one push to the next. The default is that of the
        environment variable ``OTEL_METRIC_EXPORT_INTERVAL``, or else 60.
    :raises ConfigurationError: if ``QCONSUME_METRICS`` is not set, the package
        ``opentelemetry-sdk`` is not installed, the app's metrics are pushed already, or
        an argument is wrong.
    """
    consumers, metrics = get_app_consumers(app), get_metrics(app)
    if metrics is None:
        raise ConfigurationError("No metrics to push: set 'QCONSUME_METRICS'.")
    if not callable(create_exporter):
        raise ConfigurationError(
            "'push_metrics' needs a function that creates an exporter, such as its"
            f" class, and not {quote(create_exporter)}."
        )
    sender = _make_sender(create_exporter)
    seconds = _check_interval(_read_interval() if interval is None else interval)
    if _KEY in app.extensions:
        raise ConfigurationError(
            "The app's metrics are pushed already. Call 'push_metrics' once; a"
            " Collector can pass them on to several receivers."
        )
    if os.environ.get(_DISABLED_VARIABLE, "").strip().lower() == "true":
        return
    pusher = MetricPusher(metrics, sender, seconds, make_grpc_cooperative)
    app.extensions[_KEY] = pusher
    consumers.events.add(pusher)


def _make_sender(create_exporter: CreateExporter) -> OtlpSender:
    try:
        from ..observing.otlp import OtlpSender
    except ImportError as error:
        raise ConfigurationError(
            f"'push_metrics' needs a package that is not installed ({error}). Install"
            " it by: pip install opentelemetry-sdk"
            " opentelemetry-exporter-otlp-proto-http"
        ) from error
    return OtlpSender(create_exporter)


def _read_interval() -> float:
    text = os.environ.get(_INTERVAL_VARIABLE) or str(_INTERVAL_MILLISECONDS)
    try:
        return float(text) / 1_000
    except ValueError:
        raise ConfigurationError(
            f"'{_INTERVAL_VARIABLE}' is {quote(text)}, and should be milliseconds."
        ) from None


def _check_interval(seconds: float) -> float:
    if not 0 < seconds <= _LONGEST_INTERVAL_SECONDS:
        raise ConfigurationError(
            f"Metrics cannot be pushed every {seconds:g} s: the interval must be"
            " positive, and a day at most."
        )
    return seconds
