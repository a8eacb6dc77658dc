"""The life of messages and workers, told to listeners: one :class:`Events` per app.

The code that handles, settles or publishes a message, or that connects or watches a
worker, tells it here, once. Signals, metrics, traces and log context are listeners. A
kind of event is a tuple of functions, which is empty while nothing listens, so an event
without a listener costs one look at a tuple::

    if events.connected:
        tell(events.connected, subscription, queue)

Listeners are called in the greenlet or thread in which the event happens. They must not
wait. If one raises an exception, also ``SystemExit`` and the like, the exception is
logged, and changes nothing else. Only :class:`~.errors.Interrupted` passes, which a
worker's stop throws into handlers: it may arrive while a listener runs. So may
:class:`~.errors.HandlerTimeout` while a handler publishes, which passes then.
"""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from ..errors import HandlerTimeout
from ..errors import Interrupted
from ..first_use import creation_lock
from ..logs import get_logger
from ..message import Message
from ..message import Outgoing
from ..outcomes import Reject
from ..registration.consumer import Consumer
from .context import Handling
from .result import Result

logger = get_logger("flask_qconsume.events")

#: The exceptions that pass through listeners: usually, and while a handler publishes.
_STOPS: tuple[type[BaseException], ...] = (Interrupted,)
STOPS_AND_LIMITS = (Interrupted, HandlerTimeout)

#: Called at the end of something that lasts, with its result; with ``None`` if a stop
#: interrupted the handler meanwhile.
Ending = Callable[[t.Any], object]


class Listener:
    """Base class of listeners; a subclass overrides the events that it needs.

    Three methods are told the beginning of something that lasts, and may return a
    function that is told its end.
    """

    # -- what lasts -------------------------------------------------------------------

    def handling(self, handling: Handling) -> Ending | None:
        """A message is about to be handled, in this greenlet; its app context is up.

        Told by workers and by the test client.

        :returns: A function to call in the same greenlet once the app context is
            popped, with the :class:`.Result`, or with ``None`` if a stop interrupted
            the handler. A handler that ignores its time limit and is abandoned ends
            like any other, if it ever does, but its result is not used.
        """
        raise NotImplementedError

    def settling(
        self, consumer: Consumer, action: str, messages: Sequence[Message]
    ) -> Ending | None:
        """Messages are about to be settled together.

        Told for each attempt of the broker's to take them, so twice or more for a
        message whose forward is refused. Not told for retries that the process holds
        itself, which are not settled.

        :param action: ``"ack"``, ``"retry"``, ``"suspect"`` or ``"dead-letter"``.
        :returns: A function to call with a list that has, for each message, ``None`` or
            the reason why it could not be settled.
        """
        raise NotImplementedError

    def publishing(self, messages: Sequence[Outgoing]) -> Ending | None:
        """Messages are about to be published together.

        A listener may add to the ``headers`` of each, by names and values that AMQP can
        write. Not told for messages that a test captures instead.

        :returns: A function to call with a list that has, for each message, ``None`` if
            it was confirmed, or its error; with ``None`` in place of the list if a stop
            or a time limit cut off a listener, so that nothing was sent.
        """
        raise NotImplementedError

    # -- what happens at one moment ---------------------------------------------------

    def received(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        """Messages were read from the broker, of which some may need no handler."""
        raise NotImplementedError

    def failed(self, handling: Handling, result: Result) -> None:
        """An attempt failed: ``result.failed`` is true.

        Told at most once for each attempt, with the app context up, after the teardown
        hooks.
        """
        raise NotImplementedError

    def decided(
        self, consumer: Consumer, message: Message, result: Result, seconds: float
    ) -> None:
        """A worker knows what becomes of a message: once for each attempt.

        Not told for an attempt that a stop interrupts, since it does not count.

        :param result: The outcome, and the error that led to it.
        :param seconds: How long the attempt took, hooks included.
        """
        raise NotImplementedError

    def suspected(
        self, consumer: Consumer, message: Message, rejected: Reject | None
    ) -> None:
        """A message that may have killed a process goes to the suspects.

        Told in a greenlet of its own.

        :param rejected: The outcome if it becomes a dead letter instead, which has
            killed too many processes; no attempt is made then, and none is told.
        """
        raise NotImplementedError

    def lost(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        """Handled messages lost their connection before they were settled."""
        raise NotImplementedError

    def connected(self, subscription: str, queue: str) -> None:
        """A subscription has an open connection, and reads it.

        :param subscription: The consumer's full name, followed by ``" (suspects)"`` for
            its queue of suspects.
        :param queue: The name of the queue that is read.
        """
        raise NotImplementedError

    def disconnected(self, subscription: str, queue: str, error: BaseException) -> None:
        """A subscription lost its connection, or could not connect; it tries again.

        Not told when a worker stops.
        """
        raise NotImplementedError

    def problem_began(self, problem: t.Any) -> None:
        """The watchdog noticed a :class:`~.running.health.verdict.Problem`.

        A blocked event loop is told once it runs again.
        """
        raise NotImplementedError

    def problem_ended(self, problem: t.Any, seconds: float) -> None:
        """A problem is over; it lasted for ``seconds``."""
        raise NotImplementedError

    def worker_started(self, worker: t.Any) -> None:
        """A worker consumes."""
        raise NotImplementedError

    def worker_stopping(self, worker: t.Any) -> None:
        """A worker was asked to stop."""
        raise NotImplementedError

    def worker_stopped(self, worker: t.Any, clean: bool) -> None:
        """A worker has stopped."""
        raise NotImplementedError


class Events:
    """The listeners of one app, by kind of event: a tuple of functions for each kind.

    The kinds are the methods of :class:`Listener`, which describes them.
    """

    def __init__(self) -> None:
        self.handling: tuple[Callable[[Handling], Ending | None], ...] = ()
        self.settling: tuple[
            Callable[[Consumer, str, Sequence[Message]], Ending | None], ...
        ] = ()
        self.publishing: tuple[Callable[[Sequence[Outgoing]], Ending | None], ...] = ()
        self.received: tuple[Callable[[Consumer, Sequence[Message]], None], ...] = ()
        self.failed: tuple[Callable[[Handling, Result], None], ...] = ()
        self.decided: tuple[
            Callable[[Consumer, Message, Result, float], None], ...
        ] = ()
        self.suspected: tuple[
            Callable[[Consumer, Message, Reject | None], None], ...
        ] = ()
        self.lost: tuple[Callable[[Consumer, Sequence[Message]], None], ...] = ()
        self.connected: tuple[Callable[[str, str], None], ...] = ()
        self.disconnected: tuple[Callable[[str, str, BaseException], None], ...] = ()
        self.problem_began: tuple[Callable[[t.Any], None], ...] = ()
        self.problem_ended: tuple[Callable[[t.Any, float], None], ...] = ()
        self.worker_started: tuple[Callable[[t.Any], None], ...] = ()
        self.worker_stopping: tuple[Callable[[t.Any], None], ...] = ()
        self.worker_stopped: tuple[Callable[[t.Any, bool], None], ...] = ()

    def add(self, listener: Listener) -> None:
        """Tell a listener the events whose methods it overrides, from now on."""
        with creation_lock:
            for kind, listeners in vars(self).items():
                if getattr(type(listener), kind) is not getattr(Listener, kind):
                    setattr(self, kind, (*listeners, getattr(listener, kind)))

    def remove(self, listener: Listener) -> None:
        """Tell a listener nothing more."""
        with creation_lock:
            for kind, listeners in vars(self).items():
                kept = [each for each in listeners if each.__self__ is not listener]
                setattr(self, kind, tuple(kept))


def tell(
    listeners: Sequence[Callable[..., object]],
    *arguments: t.Any,
    passing: tuple[type[BaseException], ...] = _STOPS,
) -> list[Ending]:
    """Call each listener; return the functions to call at the end, the latest first.

    :param passing: The exceptions that are not logged, but raised again.

    :raises Interrupted: if a worker's stop interrupts the handler that runs here. The
        functions to call at the end were called then.
    """
    endings: list[Ending] = []
    for listener in listeners:
        try:
            ending = listener(*arguments)
        except passing:
            tell_end(endings, None, passing)
            raise
        except BaseException as error:
            _log_failure(listener, error, passing)
        else:
            if ending is not None:
                endings.insert(0, t.cast(Ending, ending))
    return endings


def tell_end(
    endings: Sequence[Ending],
    result: t.Any,
    passing: tuple[type[BaseException], ...] = _STOPS,
) -> None:
    """Call the functions that :func:`tell` has returned, all of them in any case.

    :raises Interrupted: if a worker's stop interrupts the handler that runs here.
    """
    for place, ending in enumerate(endings):
        try:
            ending(result)
        except passing:
            tell_end(endings[place + 1 :], result, passing)
            raise
        except BaseException as error:
            _log_failure(ending, error, passing)


def _log_failure(
    function: Callable[..., object],
    error: BaseException,
    passing: tuple[type[BaseException], ...],
) -> None:
    # Of an ending with fixed arguments only the function's name: the arguments may be a
    # message with its body.
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        logger.error(
            "%s raised an exception, which changes nothing else.", name, exc_info=error
        )
    except passing:
        raise
    except BaseException:
        pass  # Logging itself raised, so nothing can be reported.
