"""The main greenlet of a command, into which gevent throws what ends others.

``SystemExit`` and ``KeyboardInterrupt`` of any greenlet are raised in the main one, by
gevent's hub. There they ask for a stop, and cut none short. Knows no messages.
"""

from __future__ import annotations

import os
import typing as t
from collections.abc import Callable

import gevent

from ..logs import get_logger
from ..text import escape
from . import greenlets
from .event import Event
from .greenlets import ProtectedGreenlet

logger = get_logger("flask_qconsume.run")

T = t.TypeVar("T")

#: What gevent raises in the main greenlet, whichever greenlet raised it.
_EXITS = (KeyboardInterrupt, SystemExit, SystemError)


def wait_for_stop(asked: Event) -> bool:
    """Wait until a stop is asked for.

    :returns: Whether it was by ``asked``, and not by an exit of another greenlet.
    """
    process = os.getpid()
    while not asked.is_set():
        try:
            asked.wait()
        except _EXITS as error:
            if os.getpid() != process:
                greenlets.end_child()
            text = (
                "A greenlet raised %s: stopping. Raise it in none, or the worker ends"
            )
            logger.error(text, _named(error), exc_info=error)
            return False
        except gevent.Timeout as timeout:
            logger.warning("A hook has left a time-out running: %s", escape(timeout))
    return True


def complete(function: Callable[..., T], *args: t.Any) -> T:
    """Call a function, whose end is waited for whatever is thrown meanwhile."""
    called = ProtectedGreenlet.spawn(function, *args)
    while not called.dead:
        try:
            called.join()
        except (*_EXITS, gevent.Timeout) as error:
            logger.warning("%s while stopping: the stop goes on", _named(error))
    return t.cast(T, called.get())


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}({escape(error)})"
