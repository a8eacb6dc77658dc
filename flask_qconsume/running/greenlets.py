"""Greenlets of the worker, which ``kill()`` and forks cannot disturb.

An app may kill all greenlets that it can find. In the worker's greenlets, that would
cut off a write in the middle, or end the reading, settling or health checks. Time-outs
still reach them, since gevent needs these for the waits of the worker's own code.

A fork copies all greenlets. In the child, only the greenlet that forked may continue:
the copies of the worker's greenlets would read, handle and settle messages a second
time. Knows no messages.
"""

from __future__ import annotations

import contextvars
import os
import sys
import typing as t
import weakref

import gevent

from ..logs import get_logger

logger = get_logger("flask_qconsume.greenlets")

_own: weakref.WeakSet[OwnGreenlet] = weakref.WeakSet()

#: In a forked child: the copies of the parent's greenlets. Empty in the parent.
copies: set[OwnGreenlet] = set()


#: The context variables with which protected greenlets begin: none, unless tracing sets
#: one that keeps instrumentations of the broker's client silent.
first_context = contextvars.Context()


class OwnGreenlet(gevent.Greenlet):  # type: ignore[misc]
    """A greenlet of the worker; its copy in a forked child does not run."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        _own.add(self)


class _End(gevent.GreenletExit):  # type: ignore[misc]
    """The exception by which :meth:`ProtectedGreenlet.end` ends a greenlet."""


class ProtectedGreenlet(OwnGreenlet):
    """A greenlet that ignores ``kill()``, and is ended by :meth:`end`."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.gr_context = first_context.copy()

    def throw(self, *args: t.Any) -> None:
        """Throw time-outs into the greenlet, but ignore ``kill()``."""
        if _is_kill(*args):
            # In another greenlet, since log handlers may wait, and the event loop must
            # not.
            gevent.spawn(_log_kill, self)
        else:
            super().throw(*args)

    def end(self, *, block: bool = True) -> None:
        """End the greenlet; if ``block``, wait until it has ended."""
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
    """The class that copied greenlets get in a forked child: they never resume."""

    def switch(self, *args: t.Any) -> None:
        """Do nothing; gevent's event loop calls this when a wait is over."""

    def throw(self, *args: t.Any) -> None:
        """Do nothing; gevent's event loop calls this for time-outs."""


def end_child(error: BaseException | None = None) -> t.NoReturn:
    """End a child process that the code of the app has forked and not ended.

    :param error: The exception that the child raised; by default, the exception that is
        being handled.
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
        # A greenlet of the app has forked. After its end, the child would wait forever.
        current.unlink_all()
        current.rawlink(lambda ended: end_child(ended.exception))
    copies.update(_own)
    for greenlet in list(_own):
        if greenlet is not current:
            greenlet.__class__ = _LeftToParent
    _own.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
