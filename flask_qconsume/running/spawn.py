"""Starts greenlets that work for one message, and end with its handler."""

from __future__ import annotations

import contextvars
import typing as t
from collections.abc import Callable

import gevent
from flask import Flask
from flask import current_app
from flask import g

from ..errors import WorkerError
from ..handling.context import current
from . import greenlets
from .greenlets import OwnGreenlet

#: Seconds to wait for the end of a greenlet that is killed after its handler.
_KILL_SECONDS = 5.0


def spawn(
    function: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any
) -> gevent.Greenlet:
    """Start a greenlet that does a part of the current message's work.

    The greenlet has an app context of its own (so a database session of its own), a
    copy of the contents of ``g``, and ``current_message``. If it still runs when the
    handler has ended, it is killed before the teardown hooks. Its ``get()`` waits for
    the result, and raises the error that the greenlet raised. A ``SystemExit`` or
    ``KeyboardInterrupt``, which would end the process, is replaced by a
    ``RuntimeError``.

    :raises WorkerError: outside of a message.
    """
    handling = current.get(None)
    if handling is None:
        raise WorkerError(
            "'flask_qconsume.spawn' starts work of a message, and no message is being"
            " handled here. Use 'gevent.spawn' for work that belongs to no message."
        )
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    child = OwnGreenlet(
        _run, app, dict(vars(g._get_current_object())), function, args, kwargs
    )
    # Libraries keep their own context variables: the current span, for one.
    child.gr_context = contextvars.copy_context()
    handling.at_end(lambda: child.kill(timeout=_KILL_SECONDS))
    child.start()
    return child


def _run(
    app: Flask,
    values: dict[str, t.Any],
    function: Callable[..., t.Any],
    args: tuple[t.Any, ...],
    kwargs: dict[str, t.Any],
) -> t.Any:
    with app.app_context():
        vars(g._get_current_object()).update(values)
        try:
            return _call(function, args, kwargs)
        except (KeyboardInterrupt, SystemExit) as error:
            raise RuntimeError(
                f"a greenlet of a message raised {type(error).__name__}, which does not"
                " end the worker"
            ) from error


def _call(
    function: Callable[..., t.Any], args: tuple[t.Any, ...], kwargs: dict[str, t.Any]
) -> t.Any:
    """Call a function; if it forks, end the child process after the call."""
    try:
        return function(*args, **kwargs)
    finally:
        if gevent.getcurrent() in greenlets.copies:
            greenlets.end_child()
