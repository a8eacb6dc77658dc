"""Tracing, switched on where OpenTelemetry is installed and set up.

``QCONSUME_TRACING`` decides it. The API's package is imported here only, since an app
may not have it.
"""

from __future__ import annotations

import contextvars
import os
import typing as t
import weakref
from collections.abc import Sequence
from types import ModuleType

from flask import Flask

from ..appconsumers import AppConsumers
from ..errors import ConfigurationError
from ..first_use import creation_lock
from ..handling.events import Ending
from ..handling.events import Listener
from ..logs import get_logger
from ..message import Outgoing
from ..settings import Settings

if t.TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from .span_attributes import SpanDescriber
    from .tracing import PublishTracer

logger = get_logger("flask_qconsume.tracing")

#: The key of an app's :class:`Tracing` in ``app.extensions``.
KEY = "qconsume_tracing"

_all: weakref.WeakSet[Tracing] = weakref.WeakSet()


class Tracing(Listener):
    """Looks for an SDK of OpenTelemetry, and has an app's spans created by it.

    It looks at the first publish of each process, also after a fork, and whenever a
    worker starts. So an app may set up its SDK late, and a publish without one costs
    nothing from the second on.

    :param module: The module :mod:`.tracing`.
    """

    def __init__(self, app: AppConsumers, module: ModuleType) -> None:
        self._app = app
        self._module = module
        self._publisher: PublishTracer | None = None
        self.look_at_next_publish()
        _all.add(self)

    def look_at_next_publish(self) -> None:
        """Look for an SDK at the next publish, unless it was found before."""
        self._app.events.remove(self)
        if self._publisher is None:
            self._app.events.add(self)

    def publishing(self, messages: Sequence[Outgoing]) -> Ending | None:
        """Look for an SDK; if it is there, create the spans of publishing."""
        self._app.events.remove(self)
        tracer = self._module.find_tracer()
        if tracer is None:
            return None
        return self._trace_publishing(tracer).publishing(messages)

    def begin_worker(self, background: contextvars.Context) -> None:
        """Create spans for what a worker does until it stops, if an SDK is there.

        :param background: The context in which the worker's own greenlets begin.
            Instrumentations of the broker's client create no spans there.
        """
        tracer = self._module.find_tracer()
        if tracer is None:
            _explain_missing_sdk(self._app.settings)
            return
        self._trace_publishing(tracer)
        background.run(self._module.suppress_clients)
        events, describer = self._app.events, self._create_describer()
        events.add(self._module.ProcessTracer(events, tracer, describer))

    def _trace_publishing(self, tracer: Tracer) -> PublishTracer:
        with creation_lock:  # Several threads may publish first.
            if self._publisher is None:
                self._publisher = self._module.PublishTracer(
                    tracer, self._create_describer()
                )
                self._app.events.remove(self)
                self._app.events.add(self._publisher)
            return self._publisher

    def _create_describer(self) -> SpanDescriber:
        from .span_attributes import SpanDescriber

        return SpanDescriber(self._app.broker.capabilities.broker, self._app.settings)


def set_up_tracing(app: Flask, consumers: AppConsumers) -> None:
    """Set ``app.extensions["qconsume_tracing"]``, unless tracing is off.

    :raises ConfigurationError: if the configuration asks for traces, and the package
        ``opentelemetry-api`` is not installed.
    """
    module = _import_tracing(consumers.settings)
    if module is not None:
        app.extensions[KEY] = Tracing(consumers, module)


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
        if not isinstance(error, ModuleNotFoundError):
            logger.warning(
                "OpenTelemetry is installed, but there are no traces, since this"
                " version of it does not fit: %s. Install another one by: pip install"
                " --upgrade 'Flask-QConsume[otel]'. Without traces, set"
                " 'QCONSUME_TRACING' to False.",
                error,
            )
        return None
    return tracing


def _explain_missing_sdk(settings: Settings) -> None:
    if settings.tracing is True:
        logger.warning(
            "'QCONSUME_TRACING' asks for traces, but no SDK of OpenTelemetry is set up,"
            " so there are none. Call 'opentelemetry.trace.set_tracer_provider' before"
            " the worker starts, at the latest in a 'before_worker' hook."
        )


def _look_again_after_fork() -> None:
    for tracing in list(_all):
        tracing.look_at_next_publish()


os.register_at_fork(after_in_child=_look_again_after_fork)
