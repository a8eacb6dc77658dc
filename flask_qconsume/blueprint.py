"""A blueprint for consumers as well as views."""

from __future__ import annotations

from flask import Blueprint

from .registration.scaffold import ConsumerScaffold


class ConsumerBlueprint(ConsumerScaffold, Blueprint):
    """A :class:`flask.Blueprint` on which consumers are registered like views.

    It takes the arguments of :class:`flask.Blueprint`, and ``consumer_defaults``, the
    options that its consumers inherit; see :class:`ConsumerScaffold`. Register it by
    ``app.register_blueprint``, before or after ``QConsume.init_app``.
    """
