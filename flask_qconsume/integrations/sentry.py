"""Report failed messages to Sentry, each in a scope of its own.

::

    import sentry_sdk
    from flask_qconsume.integrations.sentry import report_failures

    sentry_sdk.init(dsn="…")
    report_failures(app)

Needs the package ``sentry-sdk``, which the extra ``sentry`` installs.
"""

from __future__ import annotations

import contextlib

import sentry_sdk
from flask import Flask
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.utils import event_from_exception

from ..appconsumers import get_app_consumers
from ..handling.context import Handling
from ..handling.events import Ending
from ..handling.events import Listener
from ..handling.result import Result
from ..message import Message
from ..outcomes import Reject
from ..outcomes import Retry
from ..registration.consumer import Consumer


def report_failures(
    app: Flask, *, only_final: bool = False, bodies: bool = False
) -> None:
    """Report the errors of an app's consumers to Sentry, one event for each failure.

    While a message is handled, Sentry's isolation scope is the message's own. It has
    the tags ``consumer``, ``queue``, ``message_id`` and ``attempt``, and the context
    ``message``; so have other events that the handler captures. An error that the app's
    code has foreseen (an error handler returned an outcome, or one was raised) is not
    reported. A message that has killed its processes, and is a dead letter without
    another attempt, is an event without an error.

    :param app: The app with an initialized ``QConsume``. Call this once for each app,
        before or after ``sentry_sdk.init()``.
    :param only_final: Whether to report an error only if the message will not be tried
        again.
    :param bodies: Whether the context has the message's decoded body.
    :raises ConfigurationError: if no ``QConsume`` was initialised on the app.
    """
    get_app_consumers(app).events.add(_Reporter(only_final, bodies))
    # Sentry makes an event of each logged error, and these lines are about failures.
    ignore_logger("flask_qconsume.dispatch")


class _Reporter(Listener):
    def __init__(self, only_final: bool, bodies: bool) -> None:
        self._only_final = only_final
        self._bodies = bodies

    def handling(self, handling: Handling) -> Ending:
        scopes = contextlib.ExitStack()
        scope = scopes.enter_context(sentry_sdk.isolation_scope())
        scope.clear_breadcrumbs()
        self._describe(scope, handling.consumer, handling.message)
        return lambda result: scopes.close()

    def failed(self, handling: Handling, result: Result) -> None:
        is_final = not isinstance(result.outcome, Retry)
        if result.error is None or result.foreseen:
            return
        if self._only_final and not is_final:
            return
        event, hint = event_from_exception(
            result.error,
            client_options=sentry_sdk.get_client().options,
            mechanism={"type": "flask_qconsume", "handled": False},
        )
        # Some failures are told in another greenlet, which has another scope.
        with sentry_sdk.isolation_scope() as scope:
            self._describe(scope, handling.consumer, handling.message)
            scope.set_tag("final", is_final)
            sentry_sdk.capture_event(event, hint=hint)

    def suspected(
        self, consumer: Consumer, message: Message, rejected: Reject | None
    ) -> None:
        if rejected is None:
            return
        with sentry_sdk.isolation_scope() as scope:
            self._describe(scope, consumer, message)
            scope.set_tag("final", True)
            sentry_sdk.capture_message(f"Dead letter: {rejected.reason}", "error")

    def _describe(
        self, scope: sentry_sdk.Scope, consumer: Consumer, message: Message
    ) -> None:
        scope.set_transaction_name(consumer.name, source="task")
        scope.set_tag("consumer", consumer.name)
        scope.set_tag("queue", message.queue)
        scope.set_tag("message_id", message.id)
        scope.set_tag("attempt", message.attempt)
        context = {
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "content_type": message.content_type,
            "bytes": len(message.raw),
            "published": message.timestamp,
            "redelivered": message.redelivered,
        }
        if self._bodies:
            context["body"] = message.body
        scope.set_context("message", context)
