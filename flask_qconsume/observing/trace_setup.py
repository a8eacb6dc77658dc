"""Tracing, switched on where OpenTelemetry is installed and set up.

``QCONSUME_TRACING`` decides it. The API's package is imported here only, since an app
may not have it.
"""

from __future__ import annotations

import contextvars
import functools
import typing as t
from types import ModuleType

from ..appconsumers import AppConsumers
from ..errors import ConfigurationError
from ..logs import get_logger
from ..settings import Settings

if t.TYPE_CHECKING:
    from .span_attributes import SpanDescriber

logger = get_logger("flask_qconsume.tracing")


def trace_publishing(app: AppConsumers) -> None:
    """Create spans for what an app publishes, as soon as an SDK is set up.

    Each publish looks for the SDK until it is found: an app may set it up late, for
    example after a fork.

    :raises ConfigurationError: if the configuration asks for traces, and the package
        ``opentelemetry-api`` is not installed.
    """
    tracing = _import_tracing(app.settings)
    if tracing is not None:
        describe = functools.partial(_create_describer, app)
        app.events.add(tracing.PublishTracer(tracing.find_tracer, describe))


def trace_worker(app: AppConsumers, background: contextvars.Context) -> None:
    """Create spans for what a worker handles and settles, if an SDK is set up now.

    This ends when the worker stops.

    :param background: The context in which the worker's own greenlets begin.
        Instrumentations of the broker's client create no spans there.
    """
    tracing = _import_tracing(app.settings)
    if tracing is None:
        return
    tracer = tracing.find_tracer()
    if tracer is None:
        _explain_missing_sdk(app.settings)
        return
    background.run(tracing.suppress_clients)
    describer = _create_describer(app)
    app.events.add(tracing.ProcessTracer(app.events, tracer, describer))


def _import_tracing(settings: Settings) -> ModuleType | None:
    if settings.tracing is False:
        return None
    try:
        from . import tracing
    except ImportError as error:
        if settings.tracing is True:
            raise ConfigurationError(
                "'QCONSUME_TRACING' needs a package that is not installed"
                f" ({error}). Install it by: pip install 'Flask-QConsume[otel]'"
            ) from error
        return None
    return tracing


def _create_describer(app: AppConsumers) -> SpanDescriber:
    from .span_attributes import SpanDescriber

    return SpanDescriber(app.broker.capabilities.broker, app.settings)


def _explain_missing_sdk(settings: Settings) -> None:
    if settings.tracing is True:
        logger.warning(
            "'QCONSUME_TRACING' asks for traces, but no SDK of OpenTelemetry is set up,"
            " so there are none. Call 'opentelemetry.trace.set_tracer_provider' before"
            " the worker starts, at the latest in a 'before_worker' hook."
        )
