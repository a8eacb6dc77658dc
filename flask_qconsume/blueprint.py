"""The blueprint that takes consumers as well as views."""

from __future__ import annotations

from flask import Blueprint

from .registration.scaffold import ConsumerScaffold


class ConsumerBlueprint(ConsumerScaffold, Blueprint):
    """A :class:`flask.Blueprint` on which consumers are registered like views.

    It takes the arguments of :class:`flask.Blueprint`; ``app.register_blueprint`` does
    all that is needed, before or after ``QConsume.init_app``.
    """
