"""Dispatch: handles one message, from its bytes to its outcome.

1. Set :data:`current_message`, and push an app context.
2. Check the size and the expiration, decode the body, and run the ``before_message``
   hooks, the app's first. A returned outcome skips steps 3 and 4.
3. Load the body with the schema.
4. Run the handler. The consumer's time limit covers steps 2 to 4.
5. Give an error to the error handlers, the innermost first, then to the retry policy. A
   raised outcome is the outcome.
6. Run the ``after_message`` hooks, the innermost first; they may change the outcome.
7. Run the ``teardown_message`` hooks, and pop the app context.

:func:`dispatch` raises only :class:`~.errors.Interrupted`, which a worker's stop throws
into handlers. A message that was not handled completely is not acknowledged: if a step
after the handler raises, the retry policy's outcome replaces an ``Ack``. All teardown
hooks run in any case. The worker then settles the message; this module knows no broker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import typing as t
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Generator
from collections.abc import Sequence

from flask import Flask
from marshmallow import ValidationError

from ..errors import Interrupted
from ..errors import InvalidMessage
from ..logs import get_logger
from ..message import Message
from ..outcomes import Ack
from ..outcomes import Drop
from ..outcomes import Outcome
from ..outcomes import Reject
from ..outcomes import Retry
from ..registration.consumer import Consumer
from ..registration.consumer import Hook
from ..text import escape
from ..text import pluralize
from .context import Handling
from .context import current
from .events import Ending
from .events import Events
from .events import tell
from .events import tell_end
from .payload import decode
from .refusals import create_refusal
from .result import Result
from .result import strip_raise

logger = get_logger("flask_qconsume.dispatch")

#: Creates a context manager that throws ``HandlerTimeout`` after some seconds.
TimeLimit = Callable[[float], contextlib.AbstractContextManager[t.Any]]


#: A placeholder until the result is known; it never leaves this module.
_NOTHING_YET = Result(Ack())

#: The usual result, shared by all messages. With ``after_message`` hooks each message
#: gets a result of its own, since an outcome that a hook raises keeps its traceback.
_ACKED = Result(Ack())

#: Used unless the caller passes the app's events; nothing listens to these.
_NO_EVENTS = Events()


def dispatch(
    app: Flask,
    consumer: Consumer,
    message: Message,
    *,
    events: Events = _NO_EVENTS,
    limit: TimeLimit = contextlib.nullcontext,
    stopping: threading.Event | None = None,
    now: Callable[[], float] = time.time,
) -> Result:
    """Handle one message, and return the result; see the module's docstring.

    :param message: The message. Its deadline and body are set here, so never pass the
        same object twice.
    :param events: The app's events, which are told ``handling`` and ``failed``.
    :param limit: Creates the context manager that enforces the time limit; by default,
        there is no limit.
    :param stopping: Set when the worker is asked to stop.
    :param now: Returns seconds since 1970, to check the message's expiration.
    :raises Interrupted: if a worker's stop interrupts the handler. Do not settle
        the message then. No other exception is raised.
    """
    message.deadline = time.monotonic() + consumer.timeout
    if stopping is not None:
        message.stopping = stopping
    handling = Handling(consumer, message)
    # Until all is logged and told, so that the lines about the message belong to it.
    token = current.set(handling)
    run = _Run(app, handling, events, limit, now)
    try:
        result = run.handle()
        if result is not _ACKED:
            _try_to_log(consumer, message, result)
    except Interrupted:
        tell_end(run.endings, None)
        raise
    else:
        if run.endings:
            tell_end(run.endings, result)
        return result
    finally:
        current.reset(token)
        if handling.endings is not None:
            handling.end()  # Also what teardown functions have started.


def tell_failed(app: Flask, events: Events, handling: Handling, result: Result) -> None:
    """Tell that an attempt failed, in an app context of its own.

    For failures that are known only outside of the message's own context. Those that
    were told already are not told again.
    """
    if not events.failed or not result.failed or handling.failure_told:
        return
    context, token = app.app_context(), current.set(handling)
    try:
        _try_to(context.push, handling.consumer)
        _tell_failed_once(events, handling, result)
    finally:
        current.reset(token)
        _try_to(context.pop, handling.consumer)


def _tell_failed_once(events: Events, handling: Handling, result: Result) -> None:
    if not handling.failure_told:
        handling.failure_told = True
        tell(events.failed, handling, result)


def _try_to(change_context: Callable[[], None], consumer: Consumer) -> None:
    try:
        change_context()
    except Interrupted:
        raise
    except BaseException as error:
        _complain("The app context of the consumer '%s' raised.", consumer, error)


class _Run:
    """Handles one message, by the steps that the module's docstring lists."""

    __slots__ = (
        *("_app", "_attempt", "_consumer", "_events", "_hooks", "_limit", "_now"),
        *("_result", "endings", "handling"),
    )

    def __init__(
        self,
        app: Flask,
        handling: Handling,
        events: Events,
        limit: TimeLimit,
        now: Callable[[], float],
    ) -> None:
        self.handling = handling
        self._app = app
        self._consumer = handling.consumer
        self._events = events
        self._hooks = handling.consumer.hooks
        self._limit = limit
        self._now = now
        self._attempt = handling.message.attempt
        self._result = _NOTHING_YET
        #: Functions to call at the end of the handling.
        self.endings: Sequence[Ending] = ()

    def handle(self) -> Result:
        try:
            self._run_in_context(self.handling)
        except Interrupted:
            # Break a reference cycle: the result refers to frames, these to this
            # object.
            self._result = _NOTHING_YET
            raise
        except BaseException as error:
            # Only pushing or popping the app context can raise here.
            if isinstance(self._result.error, Interrupted):
                raise self._result.error from error
            self._revoke_ack(error)
            tell_failed(self._app, self._events, self.handling, self._result)
        return self._result

    def _run_in_context(self, handled: Handling) -> None:
        """Run the steps in an app context.

        The app's teardown functions get the error, unless the message is acknowledged.
        """
        context = self._app.app_context()
        try:
            # A receiver of Flask's signal may raise with the context pushed already.
            context.push()
            if self._events.handling:
                self.endings = tell(self._events.handling, handled)
            self._run_steps(handled)
            if self._events.failed and self._result.failed:
                _tell_failed_once(self._events, handled, self._result)
        except BaseException as error:
            context.pop(error)
            raise
        result = self._result
        # The usual result is tested first, since that takes less time.
        failed = result is not _ACKED and result.failed
        context.pop(result.error if failed else None)

    def _run_steps(self, handled: Handling) -> None:
        try:
            try:
                self._result = self._handle(handled.message)
            finally:
                if handled.endings is not None:
                    handled.end()
            if self._hooks.after:
                self._run_after_hooks()
        except Interrupted as error:
            self._result = Result(self._result.outcome, error)
            raise
        finally:
            if self._hooks.teardown:
                self._run_teardown_hooks()

    def _handle(self, message: Message) -> Result:
        try:
            with self._limit(self._consumer.timeout):
                outcome = self._call_handler(message)
            return self._acknowledge() if outcome is None else Result(outcome)
        except Interrupted:
            raise
        except Outcome as outcome:
            return self._handle_raised(outcome)
        except BaseException as error:
            return self._handle_error(error)

    def _acknowledge(self) -> Result:
        return Result(Ack()) if self._hooks.after else _ACKED

    def _call_handler(self, message: Message) -> Outcome | None:
        """Run steps 2 to 4 of the module's docstring; return the outcome, if any."""
        if message.expires_at is not None and message.expires_at <= self._now():
            return Drop("expired before it was consumed")
        message.body = body = None if message.tombstone else self._decode(message)
        for hook in self._hooks.before:
            found = _check_outcome(hook, hook())
            if found is not None:
                return self._apply_limits(found)
        handler = self._consumer.handler
        schema = self._consumer.schema
        unchanged = schema is None or message.tombstone
        returned = handler(body if unchanged else self._load(schema, body))
        if returned is None:
            return None
        found = _check_outcome(handler, returned)
        return None if found is None else self._apply_limits(found)

    def _decode(self, message: Message) -> t.Any:
        consumer = self._consumer
        return decode(message, consumer.decoders, consumer.max_message_size)

    def _load(self, schema: t.Any, body: t.Any) -> t.Any:
        try:
            return schema.load(body)
        except ValidationError as error:
            raise create_refusal(error) from error

    def _handle_raised(self, outcome: Outcome) -> Result:
        cause = _find_cause(outcome)
        return Result(self._apply_limits(strip_raise(outcome)), cause, foreseen=True)

    def _handle_error(self, error: BaseException) -> Result:
        try:
            outcome = self._ask_error_handlers(error)
        except Interrupted:
            raise
        except Outcome as raised:
            outcome = strip_raise(raised)
        except BaseException as another:
            return Result(self._ask_policy(another), another)
        if outcome is not None:
            return Result(self._apply_limits(outcome), error, foreseen=True)
        return Result(self._ask_policy(error), error)

    def _ask_error_handlers(self, error: BaseException) -> Outcome | None:
        for handlers in self._hooks.errors:
            for cls in type(error).__mro__:
                handler = handlers.get(cls)
                if handler is None:
                    continue
                outcome = _check_outcome(handler, handler(error))
                if outcome is not None:
                    return outcome
        return None

    def _ask_policy(self, error: BaseException) -> Outcome:
        if isinstance(error, InvalidMessage):
            return Reject(error.reason)
        return self._consumer.retry.decide(self._attempt, error)

    def _apply_limits(self, outcome: Outcome) -> Outcome:
        """Turn a ``Retry`` of the app's code into a ``Reject`` at the last attempt."""
        if isinstance(outcome, Retry):
            return self._consumer.retry.again(self._attempt, outcome.delay)
        return outcome

    def _run_after_hooks(self) -> None:
        for hook in self._hooks.after:
            try:
                found = _check_outcome(hook, hook(self._result.outcome))
            except Interrupted:
                raise
            except Outcome as outcome:
                found = strip_raise(outcome)
            except BaseException as error:
                self._revoke_ack(error)
                continue
            if found is not None and found is not self._result.outcome:
                self._result = dataclasses.replace(
                    self._result, outcome=self._apply_limits(found)
                )

    def _run_teardown_hooks(self) -> None:
        interrupted: Interrupted | None = None
        for hook in self._hooks.teardown:
            try:
                hook(self._result.error)
            except Interrupted as error:
                interrupted = error  # Raised again once the other hooks have run.
            except BaseException as error:
                self._revoke_ack(error)
        if interrupted is not None:
            try:
                raise interrupted
            finally:
                del interrupted

    def _revoke_ack(self, error: BaseException) -> None:
        """Replace an ``Ack``, since an error was raised after the handler."""
        _complain(
            "A hook of the consumer '%s' raised after the handler.",
            self._consumer,
            error,
        )
        if isinstance(self._result.outcome, Ack):
            self._result = Result(self._ask_policy(error), error)


def _check_outcome(function: Hook, returned: t.Any) -> Outcome | None:
    """Return a value if it is an outcome, else ``None``."""
    if returned is None:
        return None
    if isinstance(returned, Outcome):
        return returned
    if isinstance(returned, type) and issubclass(returned, Outcome):
        raise TypeError(
            f"'{getattr(function, '__name__', function)}' returned the class"
            f" '{returned.__name__}'; return an instance: '{returned.__name__}(...)'."
        )
    if isinstance(returned, (Coroutine, Generator, AsyncGenerator)):
        if isinstance(returned, Coroutine):
            returned.close()  # Else Python warns that it was never awaited.
        raise TypeError(
            f"'{getattr(function, '__name__', function)}' returned a"
            f" {type(returned).__name__}, of which nothing has run yet; make it a plain"
            " function, without 'async' and 'yield'."
        )
    return None


def _find_cause(outcome: Outcome) -> BaseException | None:
    """Return the error that led to an outcome: ``raise Reject(…) from error``."""
    if isinstance(outcome, Ack):
        return None
    return outcome.__cause__ or outcome.__context__


def _try_to_log(consumer: Consumer, message: Message, result: Result) -> None:
    try:
        _log(consumer, message, result)
    except Interrupted:
        raise
    except BaseException as error:
        # A log filter that raises changes nothing.
        _complain("Logging an outcome of the consumer '%s' failed.", consumer, error)


def _log(consumer: Consumer, message: Message, result: Result) -> None:
    outcome = result.outcome
    if isinstance(outcome, Retry):
        shown, seen = _count_failure(consumer, result)
        logger.warning(
            "%s: message %s failed (attempt %d of %d), again in %.1f s: %s%s",
            consumer.name,
            escape(message.id),
            message.attempt,
            consumer.retry.max_attempts,
            outcome.delay,
            _describe(result.error),
            seen,
            exc_info=shown,
        )
    elif isinstance(outcome, Reject):
        hidden = consumer.log_tracebacks == "never"
        logger.error(
            "%s: message %s is a dead letter after %s: %s",
            consumer.name,
            escape(message.id),
            pluralize(message.attempt, "attempt"),
            escape(outcome.reason),
            exc_info=None if hidden else _find_unforeseen_error(result),
        )
    elif isinstance(outcome, Drop):
        logger.info(
            "%s: message %s dropped: %s",
            consumer.name,
            escape(message.id),
            escape(outcome.reason),
        )


def _count_failure(
    consumer: Consumer, result: Result
) -> tuple[BaseException | None, str]:
    """Count a failure, and decide how much of its error is logged.

    :returns: The error to log with its traceback, or ``None``; and the text to log
        instead, with the place and the count, or ``""``.
    """
    error = _find_unforeseen_error(result)
    if error is None:
        return None, ""
    place, count = consumer.failures.count(error)
    first = count == 1 and consumer.log_tracebacks == "first"
    if first or consumer.log_tracebacks == "always":
        return error, ""
    return None, f" (at {escape(place)}, {pluralize(count, 'time')} so far)"


def _complain(text: str, consumer: Consumer, error: BaseException) -> None:
    # If logging itself raises, the error cannot be reported.
    try:
        logger.error(text, consumer.name, exc_info=error)
    except Interrupted:
        raise
    except BaseException:
        pass


def _describe(error: BaseException | None) -> str:
    if error is None:
        return "it was asked for"
    return f"{type(error).__name__}: {escape(error)}"


def _find_unforeseen_error(result: Result) -> BaseException | None:
    if result.foreseen or isinstance(result.error, InvalidMessage):
        return None
    return result.error
