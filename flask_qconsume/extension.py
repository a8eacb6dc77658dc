"""The extension :class:`QConsume`: initialises apps, and registers consumers.

It holds its registrations and no state of an app, so one instance may serve several
apps; :class:`AppConsumers` belongs to one app.
"""

from __future__ import annotations

import os
import typing as t

from flask import Flask
from flask import has_app_context

from .appconsumers import KEY
from .appconsumers import AppConsumers as AppConsumers
from .appconsumers import PublishMethods
from .appconsumers import get_app_consumers as get_app_consumers
from .errors import PublishError
from .formats.base import Format
from .formats.table import check_format
from .logs import get_logger
from .observing.log_context import ensure_log_context
from .observing.metric_setup import set_up_metrics
from .observing.trace_setup import set_up_tracing
from .registration.registry import ROOT
from .registration.registry import Registry
from .registration.scaffold import ConsumerScaffold
from .settings import Settings
from .settings import find_unread_variables

if t.TYPE_CHECKING:
    from .testing.client import TestClient


logger = get_logger("flask_qconsume.settings")


class QConsume(ConsumerScaffold, PublishMethods):
    """The Flask extension: registers consumers and publishes messages.

    Consumers, hooks and error handlers registered on it belong to the app itself; those
    of a :class:`ConsumerBlueprint` are added by ``app.register_blueprint``.

    :param app: The app to initialise, now instead of later by :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        super().__init__()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the ``QCONSUME_*`` keys once, and set ``app.extensions["qconsume"]``.

        :raises ConfigurationError: for an unknown key, a wrong value or a missing URL.
        :raises RuntimeError: if the app has a ``QConsume`` already.
        """
        if KEY in app.extensions:
            raise RuntimeError(
                "A 'QConsume' instance has already been registered on this Flask app."
                " Import and use that instance instead."
            )
        config = app.config
        consumers = AppConsumers(app, Settings.from_config(config, app.instance_path))
        set_up_metrics(app, consumers)
        set_up_tracing(app, consumers)
        ensure_log_context(consumers.settings)
        app.extensions[KEY] = consumers
        unread = find_unread_variables(config, os.environ)
        if unread and not app.testing:
            logger.warning(
                "The environment has %s, and the app's configuration something else."
                " Call 'app.config.from_prefixed_env()' before 'QConsume.init_app', and"
                " after the app's own defaults.",
                ", ".join(unread),
            )
        Registry.of(app).add_scope(ROOT, self._qconsume_scope)

    def register_format(self, format: Format) -> None:
        """Register a format that decodes and encodes message bodies.

        It takes precedence over the built-in formats, so it may replace one of them.

        :param format: An instance of a subclass of :class:`.Format`.
        :raises RegistrationError: for anything else, for a content type that another
            registered format has, or if an app of this extension publishes or consumes
            already.
        """
        self._qconsume_scope.check_open("register_format")
        check_format(format, self._qconsume_scope.formats)
        self._qconsume_scope.formats.append(format)

    def test_client(self, app: Flask) -> TestClient:
        """Return a client that runs messages through ``app`` without a broker."""
        from .testing.client import TestClient

        return TestClient(app)

    def _qconsume_describe_missing_call(self) -> str:
        return "init_app(app) of a 'QConsume' that has consumers"

    def _get_app_consumers(self) -> AppConsumers:
        if not has_app_context():
            raise PublishError(
                "'QConsume.publish' needs an app context, to know for which app."
                " Outside of one use: get_app_consumers(app).publish(…)."
            )
        return get_app_consumers()
