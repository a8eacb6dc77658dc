"""A view that answers scrapes of Prometheus, and a collector for a registry.

::

    from flask_qconsume.integrations.metrics import metrics

    app.add_url_rule("/metrics", view_func=metrics)

It is a view function like any other: the app decides under which path it answers, and
for which clients. Workers of ``flask qconsume run`` also answer at ``--health``.
"""

from __future__ import annotations

from flask import Flask
from flask import Response
from flask import current_app
from flask import request

from ..errors import ConfigurationError
from ..observing.metrics import get_metrics
from ..observing.prometheus import Collector
from ..observing.prometheus import get_exposition


def metrics() -> Response:
    """Answer a scrape, in Prometheus' text format or in OpenMetrics.

    The status is 404 if ``QCONSUME_METRICS`` is not set.
    """
    exposition = get_exposition(current_app)
    if exposition is None:
        return Response("'QCONSUME_METRICS' is not set.\n", 404, mimetype="text/plain")
    kind, body = exposition.render(request.headers.get("Accept", ""))
    return Response(body, content_type=kind, headers={"Cache-Control": "no-store"})


def create_collector(app: Flask) -> Collector:
    """Create a collector for a registry of ``prometheus_client`` that the app has.

    The registry then shows the metrics of both.

    :raises ConfigurationError: if ``QCONSUME_METRICS`` is not set.
    """
    metrics = get_metrics(app)
    if metrics is None:
        raise ConfigurationError("There is no collector: set 'QCONSUME_METRICS'.")
    return Collector(metrics)
