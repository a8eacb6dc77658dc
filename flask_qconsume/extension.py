"""The extension: what a user makes, registers on and initialises apps with.

:class:`QConsume` holds what is registered on it and nothing about an app, so one
instance may serve several; :class:`AppConsumers` is what belongs to one app.
"""

from __future__ import annotations

import os
import typing as t
from collections.abc import Iterable

from flask import Flask
from flask import current_app

from .appconsumers import KEY
from .appconsumers import AppConsumers as AppConsumers
from .appconsumers import Publishable
from .appconsumers import consumers_of as consumers_of
from .errors import PublishError
from .formats.base import Format
from .formats.table import check_format
from .logs import get_logger
from .registration.registry import ROOT
from .registration.registry import Registry
from .registration.scaffold import ConsumerScaffold
from .settings import Settings
from .settings import find_unread_variables

if t.TYPE_CHECKING:
    from .testing.client import TestClient


logger = get_logger("flask_qconsume.settings")


class QConsume(ConsumerScaffold):
    """The Flask extension.

    Consumers, hooks and error handlers registered on it are the app's own; those of a
    :class:`ConsumerBlueprint` are added by ``app.register_blueprint``. Configuration is
    read once, here, from the ``QCONSUME_*`` keys.

    :param app: Calls :meth:`init_app` if given.
    """

    def __init__(self, app: Flask | None = None) -> None:
        super().__init__()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration and make ``app.extensions["qconsume"]``.

        :raises ConfigurationError: for an unknown key, a wrong value or a missing URL.
        :raises RuntimeError: if the app has one already.
        """
        if KEY in app.extensions:
            raise RuntimeError(
                "A 'QConsume' instance has already been registered on this Flask app."
                " Import and use that instance instead."
            )
        config = app.config
        app.extensions[KEY] = AppConsumers(app, Settings.from_config(config))
        forgotten = find_unread_variables(config, os.environ)
        if forgotten and not app.testing:
            logger.warning(
                "The environment has %s, and the app's configuration something else."
                " Call 'app.config.from_prefixed_env()' before 'QConsume.init_app', and"
                " after the app's own defaults.",
                ", ".join(forgotten),
            )
        Registry.of(app).add_scope(ROOT, self._qconsume_scope)

    def _qconsume_remedy(self) -> str:
        return "init_app(app) of a 'QConsume' that has consumers"

    def register_format(self, format: Format) -> None:
        """Add a format to the apps of this extension, for consuming and publishing.

        It comes before the formats that every app has, so it may replace one of them.

        :param format: An instance of a subclass of :class:`.Format`.
        :raises RegistrationError: if it is none, if another one is registered for a
            content type of it, or if it comes too late to have any effect.
        """
        self._qconsume_scope.check_open("register_format")
        check_format(format, self._qconsume_scope.formats)
        self._qconsume_scope.formats.append(format)

    def publish(self, routing_key: str, body: t.Any, **options: t.Any) -> str:
        """Publish for the current app; see :meth:`.AppConsumers.publish`."""
        return consumers_of(_current()).publish(routing_key, body, **options)

    def publish_many(self, messages: Iterable[Publishable]) -> list[str]:
        """Publish for the current app; see :meth:`.AppConsumers.publish_many`."""
        return consumers_of(_current()).publish_many(messages)

    def test_client(self, app: Flask) -> TestClient:
        """Something that runs single messages through ``app``, without a broker."""
        from .testing.client import TestClient

        return TestClient(app)


def _current() -> Flask:
    if not current_app:
        raise PublishError(
            "'QConsume.publish' needs an app context, to know for which app. Outside of"
            " one use: app.extensions['qconsume'].publish(…)."
        )
    return t.cast(Flask, current_app._get_current_object())  # type: ignore[attr-defined]
