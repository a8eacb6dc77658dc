"""Blinker signals about messages and workers, sent by the app.

If a receiver raises an exception, it is logged, and changes nothing else.
"""

from __future__ import annotations

import typing as t

from blinker import NamedSignal
from blinker import Namespace

from ..errors import Interrupted
from ..logs import get_logger

logger = get_logger("flask_qconsume.signals")

_signals = Namespace()

#: A message is about to be handled. Arguments: ``consumer``, ``message``.
message_received = _signals.signal("message-received")
#: An attempt failed with an error. Arguments: ``consumer``, ``message``, ``outcome``,
#: ``error``; ``final``: true if there will be no further attempt; ``foreseen``: true if
#: the app's code decided the outcome, and not the retry policy.
message_failed = _signals.signal("message-failed")
#: A message was handled. Arguments: ``consumer``, ``message``, ``outcome``.
message_handled = _signals.signal("message-handled")
#: A message will be handled again. ``consumer``, ``message``, ``outcome``, ``error``.
message_retried = _signals.signal("message-retried")
#: A message will be a dead letter. ``consumer``, ``message``, ``outcome``; ``error``:
#: ``None`` also if the message has killed its processes, and is not handled again.
message_rejected = _signals.signal("message-rejected")
#: A message was dropped on purpose. ``consumer``, ``message``, ``outcome``, ``error``.
message_dropped = _signals.signal("message-dropped")
#: A message was published and confirmed. Arguments: ``message``.
message_published = _signals.signal("message-published")
#: A worker consumes. Arguments: ``worker``.
worker_started = _signals.signal("worker-started")
#: A worker was asked to stop. Arguments: ``worker``.
worker_stopping = _signals.signal("worker-stopping")
#: A worker has stopped. Arguments: ``worker``, ``clean``.
worker_stopped = _signals.signal("worker-stopped")


def send(
    signal: NamedSignal,
    app: t.Any,
    *,
    passing: tuple[type[BaseException], ...] = (Interrupted,),
    **arguments: t.Any,
) -> None:
    """Send a signal; an exception of a receiver is logged, and not raised.

    :param passing: The exceptions that are not logged, but raised again.
    """
    if not signal.receivers:
        return
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **arguments)
        except passing:
            raise
        except BaseException:
            logger.exception(
                "A receiver of the signal '%s' raised; the message is not affected.",
                signal.name,
            )
