"""Waiting in a command's main greenlet, where gevent raises other greenlets' exits.

If any greenlet raises ``SystemExit`` or ``KeyboardInterrupt``, gevent raises it in the
main greenlet. Here such an exit starts a stop, and does not interrupt a stop that is
already running. Knows no messages.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import gevent

from ..first_use import ForkGuard
from ..logs import get_logger
from ..text import escape
from . import greenlets
from .event import Event
from .greenlets import ProtectedGreenlet

logger = get_logger("flask_qconsume.run")

T = t.TypeVar("T")

#: Exceptions that gevent raises in the main greenlet, whichever greenlet raised them.
_EXITS = (KeyboardInterrupt, SystemExit, SystemError)


def run_until_stop(begin: Callable[[], object], asked: Event) -> bool:
    """Call ``begin``, then wait until a signal or a greenlet asks for a stop.

    :param begin: Completes the start; called first, while handlers may already run.
    :param asked: The event that requests the stop.
    :returns: True if ``asked`` was set; false if a greenlet ended the wait by raising
        ``SystemExit``, ``KeyboardInterrupt`` or ``SystemError``.
    """
    fork_guard = ForkGuard()
    try:
        begin()
        _wait(asked)
    except _EXITS as error:
        if fork_guard.is_forked:
            greenlets.end_child()
        text = "A greenlet raised %s: stopping. It ends the worker, so do not raise it"
        logger.error(text, _describe(error), exc_info=error)
        return False
    return True


def _wait(asked: Event) -> None:
    while not asked.is_set():
        try:
            asked.wait()
        except gevent.Timeout as timeout:
            logger.warning("A hook has left a time-out running: %s", escape(timeout))


def complete(function: Callable[..., T], *args: t.Any) -> T:
    """Call a function and wait for its result, even if a greenlet asks to exit."""
    called = ProtectedGreenlet.spawn(function, *args)
    while not called.dead:
        try:
            called.join()
        except (*_EXITS, gevent.Timeout) as error:
            logger.warning("%s while stopping: the stop goes on", _describe(error))
    return t.cast(T, called.get())


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}({escape(error)})"
