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
    calls = forgotten()
    if calls:
        return f"the app has no consumers. Was this forgotten: {'; '.join(calls)}?"
    return (
        "the app has no consumers. Decorate a function by '@blueprint.consumer(…)' of a"
        " 'ConsumerBlueprint', in a module that the app imports, and register the"
        " blueprint by 'app.register_blueprint(…)'."
    )
