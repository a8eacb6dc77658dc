"""Explains why an app has no consumers to run. No I/O, no gevent."""

from __future__ import annotations

from collections.abc import Mapping

from .consumer import Consumer
from .scaffold import list_unregistered


def explain_no_consumers(consumers: Mapping[str, Consumer]) -> str:
    """Explain why an app consumes nothing, and what to do.

    :param consumers: All consumers of the app; none of them is enabled.
    """
    if consumers:
        return "'QCONSUME_CONSUMERS' disables every consumer of the app."
    if unregistered := explain_unregistered():
        return f"the app has no consumers. {unregistered}"
    return (
        "the app has no consumers. Decorate a function by '@blueprint.consumer(…)' of a"
        " 'ConsumerBlueprint', in a module that the app imports, and register the"
        " blueprint by 'app.register_blueprint(…)'."
    )


def explain_unregistered() -> str:
    """Return a sentence about registrations that the app seems to have forgotten."""
    calls = "; ".join(list_unregistered())
    if not calls:
        return ""
    return (
        f"Was this forgotten: {calls}? The consumers of a nested blueprint come with"
        " the blueprint around it."
    )
