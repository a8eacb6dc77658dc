"""Greenlets of our own, which nothing but their own code ends or copies.

Code that kills all the greenlets it can find would otherwise cut off a write, or end
for good what reads, settles or watches. Time-outs pass: gevent implements the waits of
our own code by them.

A fork copies all greenlets. In the child, only the one that forked goes on; the copies
of ours are left to the parent, or it would handle, read and settle twice. Knows no
messages.
"""

from __future__ import annotations

import os
import sys
import typing as t
import weakref

import gevent

from ..logs import get_logger

logger = get_logger("flask_qconsume.greenlets")

_all: weakref.WeakSet[OwnGreenlet] = weakref.WeakSet()

#: In a child, the copies of the parent's greenlets: none of them goes on here.
copies: set[OwnGreenlet] = set()


class OwnGreenlet(gevent.Greenlet):  # type: ignore[misc]
    """A greenlet that is left to the parent where a process forks."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        _all.add(self)


class _End(gevent.GreenletExit):  # type: ignore[misc]
    """Thrown by :meth:`ProtectedGreenlet.end`."""


class ProtectedGreenlet(OwnGreenlet):
    """A greenlet that ends when its function does, or by :meth:`end`."""

    def throw(self, *args: t.Any) -> None:
        """Called by gevent, in the hub: for ``kill``, and for a time-out."""
        if _kills(*args):
            # Apart, since log handlers may wait, and the hub must not.
            gevent.spawn(_log_kill, self)
        else:
            super().throw(*args)

    def end(self, *, block: bool = True) -> None:
        """Kill it."""
        self.kill(_End, block=block)


def _kills(error: t.Any = gevent.GreenletExit, *_: t.Any) -> bool:
    kind = error if isinstance(error, type) else type(error)
    return issubclass(kind, gevent.GreenletExit) and kind is not _End


def _log_kill(greenlet: gevent.Greenlet) -> None:
    logger.warning(
        "Something killed %s, a greenlet of ours. It goes on; kill no greenlets but"
        " your own.",
        getattr(greenlet, "name", greenlet),
    )


# -- in a forked child ----------------------------------------------------------------


class _LeftToParent(OwnGreenlet):
    """The class that a greenlet gets in a child: nothing resumes it any more."""

    def switch(self, *args: t.Any) -> None:
        """Called by gevent's hub for what it has waited for."""

    def throw(self, *args: t.Any) -> None:
        """Called by gevent's hub for time-outs."""


def end_child(error: BaseException | None = None) -> t.NoReturn:
    """End a child whose code came back to the worker's, or to no code at all.

    :param error: What it raised; the error that is being handled, unless given.
    """
    error = error or sys.exc_info()[1]
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
        error = None
    logger.warning(
        "Code of the app forked, and the child came back from it; the child (process"
        " %d) ends here. Only the parent goes on. End what forks by 'os._exit()', or"
        " use 'subprocess'.",
        os.getpid(),
        exc_info=error,
    )
    os._exit(code)


def _leave_to_parent() -> None:
    current = gevent.getcurrent()
    if _all and current not in _all and isinstance(current, gevent.Greenlet):
        # One of the app: behind it nothing is left, but a hub that waits for ever.
        current.unlink_all()
        current.rawlink(lambda ended: end_child(ended.exception))
    copies.update(_all)
    for greenlet in list(_all):
        if greenlet is not current:
            greenlet.__class__ = _LeftToParent
    _all.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
