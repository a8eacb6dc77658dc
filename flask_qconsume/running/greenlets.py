"""Greenlets of the worker, protected against ``kill()`` and against forks.

An app may kill all greenlets that it can find. That would cut off a write in the
middle, or stop the worker from reading, settling or checking its health. Time-outs are
not stopped: gevent implements the waits of the worker's own code by them.

A fork copies all greenlets. In the child, only the greenlet that forked may continue;
the copies of the worker's greenlets must not, or messages would be read, handled and
settled twice. Knows no messages.
"""

from __future__ import annotations

import os
import sys
import typing as t
import weakref

import gevent

from ..logs import get_logger

logger = get_logger("flask_qconsume.greenlets")

_own: weakref.WeakSet[OwnGreenlet] = weakref.WeakSet()

#: In a forked child, the copies of the parent's greenlets: none of them continues.
copies: set[OwnGreenlet] = set()


class OwnGreenlet(gevent.Greenlet):  # type: ignore[misc]
    """A greenlet that continues only in the parent if the process forks."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        _own.add(self)


class _End(gevent.GreenletExit):  # type: ignore[misc]
    """Thrown by :meth:`ProtectedGreenlet.end`."""


class ProtectedGreenlet(OwnGreenlet):
    """A greenlet that ends with its function or by :meth:`end`, not by ``kill()``."""

    def throw(self, *args: t.Any) -> None:
        """Pass on time-outs and ignore kills; gevent calls it in the hub for both."""
        if _is_kill(*args):
            # In another greenlet, since log handlers may wait, and the hub must not.
            gevent.spawn(_log_kill, self)
        else:
            super().throw(*args)

    def end(self, *, block: bool = True) -> None:
        """End the greenlet."""
        self.kill(_End, block=block)


def _is_kill(error: t.Any = gevent.GreenletExit, *_: t.Any) -> bool:
    kind = error if isinstance(error, type) else type(error)
    return issubclass(kind, gevent.GreenletExit) and kind is not _End


def _log_kill(greenlet: gevent.Greenlet) -> None:
    logger.warning(
        "Code of the app tried to kill %s, a greenlet of the worker. It goes on; kill"
        " only greenlets that your own code has started.",
        getattr(greenlet, "name", greenlet),
    )


# -- in a forked child ----------------------------------------------------------------


class _LeftToParent(OwnGreenlet):
    """The class that a copied greenlet gets in a child: nothing resumes it."""

    def switch(self, *args: t.Any) -> None:
        """Ignore gevent's hub, which calls this when a wait is over."""

    def throw(self, *args: t.Any) -> None:
        """Ignore gevent's hub, which calls this for time-outs."""


def end_child(error: BaseException | None = None) -> t.NoReturn:
    """End a forked child that has returned into the worker's code.

    :param error: The error that it raised; the error that is being handled unless
        given.
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
    if _own and current not in _own and isinstance(current, gevent.Greenlet):
        # A greenlet of the app. When it ends, only a hub that waits forever is left.
        current.unlink_all()
        current.rawlink(lambda ended: end_child(ended.exception))
    copies.update(_own)
    for greenlet in list(_own):
        if greenlet is not current:
            greenlet.__class__ = _LeftToParent
    _own.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
