"""One message, from the bytes to its outcome.

1. An app context; the message becomes :data:`current_message`.
2. Its body is decoded, its size and age are checked; ``before_message`` hooks run from
   the app inwards. A returned outcome ends it here.
3. The schema loads the body.
4. The handler runs. Steps 2 to 4 have the consumer's time limit.
5. An error goes to the error handlers, innermost first, then to the retry policy. A
   raised outcome is itself.
6. ``after_message`` hooks run from inside outwards, and may change the outcome.
7. ``teardown_message`` hooks run, the app context goes.

Nothing raised in there leaves :func:`dispatch` but :class:`~.errors.Interrupted`, the
stop's own; and nothing is acknowledged that was not wholly handled: where a step after
the handler raises, an ``Ack`` becomes what the retry policy says. All teardown hooks
run, whatever happens. Settlement comes later, and elsewhere: nothing here knows a
broker.
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

from flask import Flask
from marshmallow import ValidationError

from ..errors import Interrupted
from ..errors import InvalidMessage
from ..logs import get_logger
from ..message import Message
from ..message import set_body
from ..message import start_deadline
from ..outcomes import Ack
from ..outcomes import Drop
from ..outcomes import Outcome
from ..outcomes import Reject
from ..outcomes import Retry
from ..registration.consumer import Consumer
from ..registration.consumer import Hook
from ..text import escape
from ..text import pluralize
from . import signals
from .context import Handling
from .context import current
from .payload import decode
from .refusals import create_refusal
from .result import Result
from .result import strip_raise

logger = get_logger("flask_qconsume.dispatch")

#: Makes a context manager that throws ``HandlerTimeout`` after so many seconds.
TimeLimit = Callable[[float], contextlib.AbstractContextManager[t.Any]]


#: What stands for a result until there is one; nobody sees it.
_NOTHING_YET = Result(Ack())

#: The usual one, made once. Where an ``after_message`` hook is there to see it, each
#: message gets one of its own: an outcome that is raised keeps its traceback.
_ACKED = Result(Ack())


def dispatch(
    app: Flask,
    consumer: Consumer,
    message: Message,
    *,
    limit: TimeLimit = contextlib.nullcontext,
    stopping: threading.Event | None = None,
    now: Callable[[], float] = time.time,
) -> Result:
    """Handle one message; see the module's description.

    :param message: Gets its time, and its body; so each dispatch has its own.
    :param limit: What enforces the time limit; nothing does unless given.
    :param stopping: Set when the worker is asked to stop.
    :param now: Seconds since 1970, to tell whether the message has expired.
    :raises Interrupted: the only thing that is raised: the delivery stays unsettled.
    """
    start_deadline(message, consumer.timeout, stopping)
    result = _Run(app, consumer, limit, now, message.attempt).handle(message)
    if result is _ACKED and not signals.message_handled.receivers:
        return result  # There is nothing to tell, and nobody to be told.
    try:
        _tell(app, consumer, message, result)
    except Interrupted:
        raise
    except BaseException as error:
        # A log filter that raises, or a receiver's SystemExit: they only look on.
        _complain("An observer of the consumer '%s' raised.", consumer, error)
    return result


class _Run:
    """One passage of one message through the steps."""

    __slots__ = ("_app", "_attempt", "_consumer", "_hooks", "_limit", "_now", "_result")

    def __init__(
        self,
        app: Flask,
        consumer: Consumer,
        limit: TimeLimit,
        now: Callable[[], float],
        attempt: int,
    ) -> None:
        self._app = app
        self._consumer = consumer
        self._hooks = consumer.hooks
        self._limit = limit
        self._now = now
        self._attempt = attempt
        self._result = _NOTHING_YET

    def handle(self, message: Message) -> Result:
        try:
            self._in_context(message)
        except Interrupted:
            # It refers to the frames of its calls, and those refer to this.
            self._result = _NOTHING_YET
            raise
        except BaseException as error:
            # Only a teardown of the app context can raise here (or its start).
            if isinstance(self._result.error, Interrupted):
                raise self._result.error from error
            self._spoil(error)
        return self._result

    def _in_context(self, message: Message) -> None:
        """The app's context; as after a request, its end is told an unhandled error."""
        context = self._app.app_context()
        handled = Handling(message)
        try:
            # A receiver of its signal may raise here, with the context pushed already.
            context.push()
            token = current.set(handled)
            try:
                self._steps(handled)
            finally:
                current.reset(token)
        except BaseException as error:
            context.pop(error)
            raise
        acked = isinstance(self._result.outcome, Ack)
        context.pop(None if acked else self._result.error)

    def _steps(self, handled: Handling) -> None:
        if signals.message_received.receivers:
            signals.send(
                signals.message_received,
                self._app,
                consumer=self._consumer,
                message=handled.message,
            )
        try:
            try:
                self._result = self._outcome(handled.message)
            finally:
                handled.end()
            if self._hooks.after:
                self._after()
        except Interrupted as error:
            self._result = Result(self._result.outcome, error)
            raise
        finally:
            if self._hooks.teardown:
                self._teardown()

    def _outcome(self, message: Message) -> Result:
        try:
            with self._limit(self._consumer.timeout):
                outcome = self._call(message)
            return self._acked() if outcome is None else Result(outcome)
        except Interrupted:
            raise
        except Outcome as outcome:
            return self._of_raised(outcome)
        except BaseException as error:
            return self._of_error(error)

    def _acked(self) -> Result:
        return Result(Ack()) if self._hooks.after else _ACKED

    def _call(self, message: Message) -> Outcome | None:
        """What was returned, if it was an outcome: by a hook or by the handler."""
        if message.expires_at is not None and message.expires_at <= self._now():
            return Drop("expired before it was consumed")
        body = None if message.tombstone else self._decoded(message)
        set_body(message, body)
        for hook in self._hooks.before:
            found = _outcome_of(hook, hook())
            if found is not None:
                return self._decided(found)
        handler = self._consumer.handler
        schema = self._consumer.schema
        unchanged = schema is None or message.tombstone
        returned = handler(body if unchanged else self._loaded(schema, body))
        if returned is None:
            return None
        found = _outcome_of(handler, returned)
        return None if found is None else self._decided(found)

    def _decoded(self, message: Message) -> t.Any:
        consumer = self._consumer
        return decode(message, consumer.decoders, consumer.max_message_size)

    def _loaded(self, schema: t.Any, body: t.Any) -> t.Any:
        try:
            return schema.load(body)
        except ValidationError as error:
            raise create_refusal(error) from error

    def _of_raised(self, outcome: Outcome) -> Result:
        cause = _cause(outcome)
        return Result(self._decided(strip_raise(outcome)), cause, foreseen=True)

    def _of_error(self, error: BaseException) -> Result:
        """What the error handlers say of it, or else the retry policy."""
        try:
            outcome = self._from_error_handlers(error)
        except Interrupted:
            raise
        except Outcome as raised:
            outcome = strip_raise(raised)
        except BaseException as another:
            return Result(self._by_policy(another), another)
        if outcome is not None:
            return Result(self._decided(outcome), error, foreseen=True)
        return Result(self._by_policy(error), error)

    def _from_error_handlers(self, error: BaseException) -> Outcome | None:
        for handlers in self._hooks.errors:
            for cls in type(error).__mro__:
                handler = handlers.get(cls)
                if handler is None:
                    continue
                found = _outcome_of(handler, handler(error))
                if found is not None:
                    return found
        return None

    def _by_policy(self, error: BaseException) -> Outcome:
        if isinstance(error, InvalidMessage):
            return Reject(error.reason)
        return self._consumer.retry.decide(self._attempt, error)

    def _decided(self, outcome: Outcome) -> Outcome:
        """A retry that was asked for still has the policy's end, and its delay."""
        if isinstance(outcome, Retry):
            return self._consumer.retry.again(self._attempt, outcome.delay)
        return outcome

    def _after(self) -> None:
        for hook in self._hooks.after:
            try:
                found = _outcome_of(hook, hook(self._result.outcome))
            except Interrupted:
                raise
            except Outcome as outcome:
                found = strip_raise(outcome)
            except BaseException as error:
                self._spoil(error)
                continue
            if found is not None and found is not self._result.outcome:
                self._result = dataclasses.replace(
                    self._result, outcome=self._decided(found)
                )

    def _teardown(self) -> None:
        interrupted: Interrupted | None = None
        for hook in self._hooks.teardown:
            try:
                hook(self._result.error)
            except Interrupted as error:
                interrupted = error  # The other hooks come first.
            except BaseException as error:
                self._spoil(error)
        if interrupted is not None:
            try:
                raise interrupted
            finally:
                del interrupted

    def _spoil(self, error: BaseException) -> None:
        """Something raised after the handler: what it had done may not have held."""
        _complain(
            "A hook of the consumer '%s' raised after the handler.",
            self._consumer,
            error,
        )
        if isinstance(self._result.outcome, Ack):
            self._result = Result(self._by_policy(error), error)


def _outcome_of(function: Hook, returned: t.Any) -> Outcome | None:
    """What a function returned, if it is an outcome; other values mean nothing."""
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
            returned.close()  # Python would warn that it was never awaited.
        raise TypeError(
            f"'{getattr(function, '__name__', function)}' returned a"
            f" {type(returned).__name__}, of which nothing has run yet; make it a plain"
            " function, without 'async' and 'yield'."
        )
    return None


def _cause(outcome: Outcome) -> BaseException | None:
    """The error that an outcome was raised from: ``raise Reject("…") from error``."""
    if isinstance(outcome, Ack):
        return None
    return outcome.__cause__ or outcome.__context__


_SIGNALS = {
    Ack: signals.message_handled,
    Retry: signals.message_retried,
    Reject: signals.message_rejected,
    Drop: signals.message_dropped,
}


def _tell(app: Flask, consumer: Consumer, message: Message, result: Result) -> None:
    kind = type(result.outcome)
    if kind is not Ack:
        _log(consumer, message, result)
    if not _SIGNALS[kind].receivers:
        return
    signals.send(
        _SIGNALS[kind],
        app,
        consumer=consumer,
        message=message,
        outcome=result.outcome,
        error=result.error,
    )


def _log(consumer: Consumer, message: Message, result: Result) -> None:
    outcome = result.outcome
    if isinstance(outcome, Retry):
        shown, seen = _note(consumer, result)
        logger.warning(
            "%s: message %s failed (attempt %d of %d), again in %.1f s: %s%s",
            consumer.name,
            escape(message.id),
            message.attempt,
            consumer.retry.max_attempts,
            outcome.delay,
            _described(result.error),
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
            exc_info=None if hidden else _unforeseen(result),
        )
    elif isinstance(outcome, Drop):
        logger.info(
            "%s: message %s dropped: %s",
            consumer.name,
            escape(message.id),
            escape(outcome.reason),
        )


def _note(consumer: Consumer, result: Result) -> tuple[BaseException | None, str]:
    """Count a failure.

    :returns: The error, where its traceback is to be logged; else where it was raised
        and how often.
    """
    error = _unforeseen(result)
    if error is None:
        return None, ""
    place, count = consumer.failures.note(error)
    first = count == 1 and consumer.log_tracebacks == "first"
    if first or consumer.log_tracebacks == "always":
        return error, ""
    return None, f" (at {escape(place)}, {pluralize(count, 'time')} so far)"


def _complain(text: str, consumer: Consumer, error: BaseException) -> None:
    # Where logging itself raises there is nobody left to tell.
    try:
        logger.error(text, consumer.name, exc_info=error)
    except Interrupted:
        raise
    except BaseException:
        pass


def _described(error: BaseException | None) -> str:
    if error is None:
        return "it was asked for"
    return f"{type(error).__name__}: {escape(error)}"


def _unforeseen(result: Result) -> BaseException | None:
    """The error, where its traceback tells more than the outcome's reason does."""
    if result.foreseen or isinstance(result.error, InvalidMessage):
        return None
    return result.error
