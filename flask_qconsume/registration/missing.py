"""Why an app has nothing to consume, and what to do. No I/O, no gevent."""

from __future__ import annotations

from collections.abc import Mapping

from .consumer import Consumer
from .scaffold import forgotten


def why_nothing(consumers: Mapping[str, Consumer]) -> str:
    """Explain why nothing of an app can be consumed.

    :param consumers: All consumers of the app; none of them is enabled.
    """
    if consumers:
        return "'QCONSUME_CONSUMERS' disables every consumer of the app."
    if unregistered := why_not_all():
        return f"the app has no consumers. {unregistered}"
    return (
        "the app has no consumers. Decorate a function by '@blueprint.consumer(…)' of a"
        " 'ConsumerBlueprint', in a module that the app imports, and register the"
        " blueprint by 'app.register_blueprint(…)'."
    )


def why_not_all() -> str:
    """Name blueprints and extensions with consumers and no app; empty if none."""
    calls = "; ".join(forgotten())
    if not calls:
        return ""
    return (
        f"Was this forgotten: {calls}? The consumers of a nested blueprint come with"
        " the blueprint around it."
    )
