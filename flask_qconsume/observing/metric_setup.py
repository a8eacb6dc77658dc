"""Turn on the metrics of an app, if its configuration asks for them."""

from __future__ import annotations

import importlib.util

from flask import Flask

from ..appconsumers import AppConsumers
from ..errors import ConfigurationError
from .counters import Counters
from .metrics import KEY
from .metrics import Metrics


def set_up_metrics(app: Flask, consumers: AppConsumers) -> None:
    """Count the messages of an app, if ``QCONSUME_METRICS`` is set.

    :raises ConfigurationError: if the package ``prometheus-client`` is not installed.
    """
    setting = consumers.settings.metrics
    if not setting:
        return
    # Not imported: at its import, it decides whether the app's own metrics are kept by
    # several processes.
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigurationError(
            "'QCONSUME_METRICS' needs the package 'prometheus-client'. Install"
            " 'Flask-QConsume[metrics]'."
        )
    metrics = Metrics(setting if isinstance(setting, str) else None, app.name)
    app.extensions[KEY] = metrics
    consumers.events.add(Counters(metrics))
