"""Greenlets that belong to a message and end with its handler."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import gevent
from flask import Flask
from flask import current_app
from flask import g

from ..errors import WorkerError
from ..handling.context import Handling
from ..handling.context import current
from . import greenlets
from .greenlets import OwnGreenlet

#: Seconds that a child is waited for when its handler has ended.
_PATIENCE = 5.0


def spawn(
    function: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any
) -> gevent.Greenlet:
    """Start a greenlet for a part of the current message's work.

    It has an app context of its own (so a database session of its own), a copy of what
    is in ``g``, and ``current_message``. It ends with its handler: what still runs then
    is killed, before the teardown hooks. Wait for it by ``.get()``, which also raises
    what it raised. ``SystemExit`` and ``KeyboardInterrupt`` would end the process; a
    ``RuntimeError`` takes their place.

    :raises WorkerError: outside of a message.
    """
    now = current.get(None)
    if now is None:
        raise WorkerError(
            "'flask_qconsume.spawn' starts work of a message, and none is being handled"
            " here. Use 'gevent.spawn' for what belongs to no message."
        )
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    child = OwnGreenlet(
        _run, app, now, dict(vars(g._get_current_object())), function, args, kwargs
    )
    now.at_end(lambda: child.kill(timeout=_PATIENCE))
    child.start()
    return child


def _run(
    app: Flask,
    now: Handling,
    values: dict[str, t.Any],
    function: Callable[..., t.Any],
    args: tuple[t.Any, ...],
    kwargs: dict[str, t.Any],
) -> t.Any:
    current.set(now)  # A greenlet's context begins empty, and ends with it.
    with app.app_context():
        vars(g._get_current_object()).update(values)
        try:
            return _called(function, args, kwargs)
        except (KeyboardInterrupt, SystemExit) as error:
            raise RuntimeError(
                f"a greenlet of a message raised {type(error).__name__}, which ends no"
                " worker"
            ) from error


def _called(
    function: Callable[..., t.Any], args: tuple[t.Any, ...], kwargs: dict[str, t.Any]
) -> t.Any:
    """Call a function; a process that it has forked does not come back from it."""
    try:
        return function(*args, **kwargs)
    finally:
        if gevent.getcurrent() in greenlets.copies:
            greenlets.end_child()
